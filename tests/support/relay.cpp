// The lambda of docs/integrations/esphome.yaml as a program: what the device lends it stands here in its place.
// Each line of the input is an event, or one of the variables as `NAME SECONDS`; each event is answered by 1, opened, or 0.
#include <sys/time.h>

#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#define id(name) name

static double synchronised_at = 0;
static double since = 0;
static std::vector<std::pair<std::string, double>> opened;
static struct {
  int opened = 0;
  void turn_on() { opened = 1; }
} relay;

static void on_event(nlohmann::json x) {
#include LAMBDA
}

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const size_t space = line.find(' ');
    if (line[0] == '{') {
      relay.opened = 0;
      on_event(nlohmann::json::parse(line));
      std::cout << relay.opened << std::endl;
    } else if (line.substr(0, space) == "since") {
      since = std::stod(line.substr(space));
    } else {
      synchronised_at = std::stod(line.substr(space));
    }
  }
}
