import pytest
import torch

mmengine = pytest.importorskip('mmengine')

from mmengine.config import ConfigDict  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmengine.structures import BaseDataElement  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.engine.hooks import CheckFiniteHook  # noqa: E402
from plugconv_mm.errors import NonFiniteError  # noqa: E402


class Images(Dataset):
    """Image i is full of i; one of them, where asked for, is not a number."""

    def __init__(self, wrong=None):
        self.wrong = wrong

    def __len__(self):
        return 6

    def __getitem__(self, i):
        value = float('nan') if i == self.wrong else float(i)
        return dict(inputs=torch.full((1, 2, 2), value),
                    data_samples=BaseDataElement(metainfo=dict(img_path=f'images/{i}.jpg')))


class Model(BaseModel):
    """Its loss is infinite where an image is full of ``breaks_at``."""

    def __init__(self, breaks_at=-1):
        super().__init__()
        self.weight, self.breaks_at = torch.nn.Parameter(torch.ones(1)), breaks_at

    def forward(self, inputs, data_samples, mode):
        inputs = torch.stack(list(inputs))
        loss = (self.weight * inputs.mean((1, 2, 3))).mean()
        return dict(loss_box=loss * 0 + 1, loss_cls=loss / float((inputs != self.breaks_at).all()))


def train(tmp_path, dataset, model):
    runner = Runner(
        model, str(tmp_path), experiment_name=f'finite-{tmp_path.name}', log_level='ERROR',
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset, collate_fn=dict(type='pseudo_collate'),
                              sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[dict(type='plugconv_mm.CheckFiniteHook')])
    runner.train()


def test_finite_training_runs(tmp_path):
    train(tmp_path, Images(), Model())
    assert (tmp_path / 'iter_3.pth').is_file()


def test_loss_names_the_images_and_saves_nothing(tmp_path):
    with pytest.raises(NonFiniteError) as error:
        train(tmp_path, Images(), Model(breaks_at=3))
    message = str(error.value)
    assert 'iteration 2' in message and 'loss_cls = inf' in message and 'loss_box' not in message
    assert 'images/2.jpg, images/3.jpg' in message and 'images/1.jpg' not in message
    assert 'optim_wrapper.optimizer.lr' in message
    assert sorted(path.name for path in tmp_path.glob('iter_*.pth')) == ['iter_1.pth']


def test_input_names_the_image(tmp_path):
    with pytest.raises(NonFiniteError, match=r'input holds NaN or infinity at iteration 2, in .*/3\.jpg') as error:
        train(tmp_path, Images(wrong=3), Model())
    assert 'images/2.jpg' not in str(error.value)


def test_bare_labels_have_no_names():
    with pytest.raises(NonFiniteError, match='The images of this batch: unknown'):
        CheckFiniteHook().after_train_iter(ConfigDict(iter=3), 3, dict(data_samples=torch.tensor([1, 2])),
                                           dict(loss=torch.tensor(float('nan'))))
