"""What runs leave in their work dirs."""
import json
from pathlib import Path


def figures(folder):
    """The evaluation figures that a run logged last."""
    files = [*Path(folder).glob('*/vis_data/scalars.json'), *Path(folder).glob('*/*.json')]
    file = max((f for f in files if f.stat().st_size), key=lambda path: path.stat().st_mtime)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return {k: v for k, v in records[-1].items() if k.startswith('coco/') or k in ('mIoU', 'aAcc', 'mAcc')}
