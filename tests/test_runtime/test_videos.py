"""Videos that are read frame by frame, and written whole or not at all."""
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from repository import ROOT

from plugconv_mm.errors import DataError, OutputError
from plugconv_mm.runtime.videos import Video, check_window, open_video, video_writer, window


def ramps(count):
    """Frames (64, 80, 3), BGR, each brighter than the one before, and redder than blue."""
    return [np.full((64, 80, 3), (20 * i, 20 * i, 20 * i + 60), np.uint8) for i in range(count)]


def write(path, frames, rate=12.5):
    with video_writer(path, rate) as put:
        for frame in frames:
            assert put(frame)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / 'clip.mp4'
    write(path, ramps(7))
    video = open_video(str(path))
    assert (video.name, video.is_camera, video.rate, video.count) == ('clip', False, 12.5, 7)
    frames = list(video)
    assert len(frames) == 7
    for given, frame in zip(ramps(7), frames, strict=True):  # RGB
        np.testing.assert_allclose(frame.mean((0, 1)), given[0, 0, ::-1], atol=6)


def test_a_failure_leaves_the_old_video(tmp_path):
    path = tmp_path / 'clip.mp4'
    write(path, ramps(3))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), video_writer(path, 10) as put:
        put(ramps(1)[0])
        raise ZeroDivisionError
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('content', [b'', b'text\n' * 1000, b'{}', bytes(5000)], ids=['empty', 'text', 'json', 'zeros'])
@pytest.mark.parametrize('name', ['a.mp4', 'a.txt', 'a'])
def test_no_videos(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f'{name} cannot be read as an image or a video'):
        open_video(str(tmp_path / name))


def test_one_message(tmp_path):
    """OpenCV and FFmpeg add nothing to it; FFmpeg is told so as it opens the first video of a process."""
    (tmp_path / 'a.mp4').write_bytes(bytes(5000))
    script = """
from plugconv_mm.errors import DataError
from plugconv_mm.runtime.videos import open_video
for source in ('a.mp4', '97'):
    try:
        open_video(source)
    except DataError as error:
        print(error)
"""
    end = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=tmp_path, capture_output=True, text=True,
                         env=dict(os.environ, PYTHONPATH=str(ROOT)))
    first, second = end.stdout.splitlines()
    assert 'a.mp4 cannot be read as an image or a video' in first and 'there is no camera 97' in second
    assert not end.stderr


def test_images_and_folders_are_no_videos(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), ramps(1)[0])
    (tmp_path / 'a.png').rename(tmp_path / 'a')
    (tmp_path / 'broken.jpg').write_text('no image')
    assert all(open_video(str(tmp_path / name)) is None for name in ('a', '.', 'none', 'broken.jpg'))


@pytest.mark.parametrize('told', [0, -1, float('nan'), 90000])
def test_rates_that_are_none(told, tmp_path, monkeypatch):
    path = tmp_path / 'clip.mp4'
    write(path, ramps(2))

    class Capture:

        def __init__(self, source):
            self.inner = cv2_capture(source)
            self.read, self.release = self.inner.read, self.inner.release

        def get(self, key):
            return told if key == cv2.CAP_PROP_FPS else self.inner.get(key)

    cv2_capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    assert Video(path).rate == 25


def test_no_window(monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('sys.platform', 'linux')
    with pytest.raises(OutputError, match='there is no display .* --out-dir'):
        check_window()
    monkeypatch.setenv('DISPLAY', ':97')

    def headless(*args):
        raise cv2.error('not implemented')

    monkeypatch.setattr(cv2, 'namedWindow', headless)
    with pytest.raises(OutputError, match='opens no windows.* --out-dir'):
        check_window()


@pytest.mark.parametrize(('key', 'visible', 'more'), [(-1, 1, True), (ord('q'), 1, False), (27, 1, False),
                                                      (ord('a'), 1, True), (-1, 0, False)])
def test_window(key, visible, more, monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, 'imshow', lambda title, frame: shown.append((title, frame.shape)))
    monkeypatch.setattr(cv2, 'waitKey', lambda delay: key)
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda title, prop: visible)
    monkeypatch.setattr(cv2, 'destroyAllWindows', lambda: shown.append('closed'))
    with window('camera-0') as put:
        assert put(ramps(1)[0]) is more
    assert shown == [('camera-0', (64, 80, 3)), 'closed']
