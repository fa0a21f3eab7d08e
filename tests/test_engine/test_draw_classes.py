"""Images of a test, drawn with their classes."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from mmpretrain.structures import DataSample  # noqa: E402
from mmpretrain.visualization import UniversalVisualizer  # noqa: E402

from plugconv_mm.engine.hooks import DrawClassesHook  # noqa: E402


class Data(list):
    def get_data_info(self, i):
        return self[i]


def run(hook, paths, inputs=None):
    visualizer = UniversalVisualizer(name=f'draw-{id(hook)}')
    visualizer.dataset_meta = dict(classes=['cat', 'dog'])
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=Data(
        dict(img_path=path) if path else {} for path in paths)), visualizer=visualizer)
    samples = []
    for path in paths:
        samples.append(DataSample(metainfo=dict(img_path=path) if path else {}))
        samples[-1].set_pred_label(1).set_pred_score(torch.tensor([0.25, 0.75]))
    hook.before_test(runner)
    for start in range(0, len(samples), 2):
        hook.after_test_iter(runner, start // 2, dict(inputs=inputs), samples[start:start + 2])


def test_images_of_one_name_in_several_folders(tmp_path):
    paths = []
    for name in ('a/1.png', 'b/1.png', 'b/c/1.jpg', 'b/2.xyz'):
        paths.append(str(tmp_path / 'data' / name))
        (tmp_path / 'data' / name).parent.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode('.png', np.full((20, 30, 3), 40 * len(paths), np.uint8))[1]
        (tmp_path / 'data' / name).write_bytes(data)
    run(DrawClassesHook(out_dir=str(tmp_path / 'out')), paths)
    drawn = sorted(path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*.*'))
    assert drawn == ['a/1.png', 'b/1.png', 'b/2.xyz.png', 'b/c/1.jpg']
    for number, name in enumerate(('a/1.png', 'b/1.png'), 1):
        image = cv2.imread(str(tmp_path / 'out' / name))
        assert image.shape[0] == 224  # enlarged, so that the name can be read
        assert (image[-20:, -20:] == 40 * number).all()
        assert (image != 40 * number).any()  # and it is there


@pytest.mark.parametrize('views', [1, 2])
def test_images_in_no_file(views, tmp_path):
    batch = [torch.full((3, 8, 8), 90 * i, dtype=torch.uint8) for i in (1, 2)]
    run(DrawClassesHook(out_dir=str(tmp_path)), [None, None], batch if views == 1 else [batch, batch])
    assert [int(cv2.imread(str(tmp_path / f'{i}.png'))[-1, -1, 0]) for i in (0, 1)] == [90, 180]
