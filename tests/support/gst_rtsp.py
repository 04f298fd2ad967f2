"""A real RTSP server, GStreamer's: `/usr/bin/python3 gst_rtsp.py PORT WIDTH HEIGHT`, on 127.0.0.1, path /live.

It shows the pictures of film.py. SIGUSR1 freezes them: the server goes on and sends the same one; SIGUSR2 thaws.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import film  # beside this file; the system's Python knows no package `tests`

_H264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=20 bitrate=2000 ! rtph264pay name=pay0 pt=96"


def main() -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    port, width, height = map(int, sys.argv[1:4])
    frozen: list[int] = []
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(port))
    factory = GstRtspServer.RTSPMediaFactory()
    caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={film.FPS}/1"
    source = f"appsrc name=source is-live=true do-timestamp=true format=time caps={caps}"
    factory.set_launch(f"( {source} ! videoconvert ! video/x-raw,format=I420 ! {_H264} )")
    factory.set_shared(True)

    def play(_factory: Any, media: Any) -> None:
        source = media.get_element().get_child_by_name("source")

        def shoot() -> bool:
            number = frozen[0] if frozen else film.count()
            buffer = Gst.Buffer.new_wrapped(film.bgr(number, width, height))
            return bool(source.emit("push-buffer", buffer) == Gst.FlowReturn.OK)

        GLib.timeout_add(1000 // film.FPS, shoot)

    def freeze() -> bool:
        frozen.append(film.count())
        return True

    def thaw() -> bool:
        frozen.clear()
        return True

    factory.connect("media-configure", play)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR1, freeze)
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR2, thaw)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
