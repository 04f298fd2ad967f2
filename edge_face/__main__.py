from edge_face.cli import main

if __name__ == "__main__":
    main()
