"""Videos of the user's own, from files and cameras, and their drawings as videos or in a window."""
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from plugconv_mm.datasets.image_files import SUFFIXES
from plugconv_mm.errors import DataError, OutputError

_RATE = 25  # frames a second, where a video does not tell

# FFmpeg writes nothing about files that it cannot open, if it is told so before the first one.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


class Video:
    """The frames of a video file or of a camera, in order.

    Args:
        source: The file, or the number of the camera.

    Attributes:
        name: The name of the file without its suffix, or ``camera-NUMBER``.
        is_camera: Whether they are of a camera, and have no end.
        rate: Frames a second.
        count: The number of frames that the file tells of, or 0; some formats have but an estimate.

    Raises:
        DataError: The first frame cannot be read.
    """

    def __init__(self, source: Path | int) -> None:
        self.is_camera = isinstance(source, int)
        self.name = f'camera-{source}' if self.is_camera else source.stem
        with _quiet():
            self.capture = cv2.VideoCapture(source if self.is_camera else str(source))
            self.first = self._read()
        # FFmpeg draws text files, as a terminal would.
        if self.first is None or int(self.capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter_fourcc(*'ansi'):
            raise DataError(f'there is no camera {source}, or another program uses it; a file is ./{source}'
                            if self.is_camera else f'{source} cannot be read as an image or a video: it is empty, '
                            'broken, or of another format')
        self.rate = self.capture.get(cv2.CAP_PROP_FPS)
        if not 1 <= self.rate <= 1000:
            self.rate = _RATE
        self.count = 0 if self.is_camera else max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def _read(self) -> np.ndarray | None:
        found, frame = self.capture.read()
        return np.ascontiguousarray(frame[..., ::-1]) if found else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3), RGB, uint8; once, as they are not kept."""
        frame, self.first = self.first, None
        while frame is not None:
            yield frame
            frame = self._read()
        self.capture.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from writing about files and cameras that it cannot open."""
    before = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(before)


def open_video(source: str) -> Video | None:
    """The video that a source names: a bare number is a camera; None if it is an image, a folder, or not there.

    Raises:
        DataError: It is a file, but neither an image nor a video, or there is no such camera.
    """
    if source.isdecimal():
        return Video(int(source))
    path = Path(source)
    is_image = path.suffix.lower() in SUFFIXES or not path.is_file() or cv2.haveImageReader(source)
    return None if is_image else Video(path)


@contextlib.contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], bool]]:
    """Write frames, (H, W, 3), BGR, of one size, into an MP4 file, which takes the place of ``path`` once it is whole.

    Yields:
        A function that writes a frame, and answers whether there shall be more, which is always so.

    Raises:
        OutputError: It cannot be written.
    """
    writer = None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as folder:
        part = Path(folder) / path.name

        def write(frame: np.ndarray) -> bool:
            nonlocal writer
            if writer is None:
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*'mp4v'), rate, frame.shape[1::-1])
                if not writer.isOpened():
                    raise OutputError(f'{path} cannot be written: this OpenCV has no encoder for MPEG-4')
            writer.write(np.ascontiguousarray(frame))
            return True

        try:
            yield write
        finally:
            if writer is not None:
                writer.release()
        if part.is_file():
            os.replace(part, path)


def check_window() -> None:
    """Check that a window can be opened, before a model is built whose predictions it shows.

    Raises:
        OutputError: There is no display, or OpenCV was built without windows.
    """
    advice = 'write a video with --out-dir'
    # Qt ends the process where it finds no display.
    if sys.platform.startswith('linux') and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise OutputError(f'there is no display to show the camera on: {advice}')
    try:
        cv2.namedWindow('')
        cv2.destroyWindow('')
    except cv2.error as error:
        raise OutputError(f'this OpenCV opens no windows, as opencv-python-headless does not: {advice}') from error


@contextlib.contextmanager
def window(title: str) -> Iterator[Callable[[np.ndarray], bool]]:
    """Show frames, (H, W, 3), BGR, in a window.

    Yields:
        A function that shows a frame, and answers whether there shall be more: until q or Esc is pressed, or the window
        is closed.
    """

    def show(frame: np.ndarray) -> bool:
        cv2.imshow(title, frame)
        return cv2.waitKey(1) & 0xff not in (ord('q'), 27) and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
