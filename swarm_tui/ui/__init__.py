"""The screens. They know the supervisor and its store, and no adapter."""

import os

# Read by Textual when it is imported. A repaint waits for the next frame, sometimes for two: with
# frames twice as short a key is on the screen in half the time, and an idle screen draws none.
os.environ.setdefault("TEXTUAL_FPS", "120")
