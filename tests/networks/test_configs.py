from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

FOLDER = Path(__file__).parents[2] / "conf" / "model" / "network"
OPTIONS = sorted(FOLDER.glob("*.yaml"))


def test_all_options_are_seen():
    names = {path.stem for path in OPTIONS}
    assert names >= {"small_cnn", "cnn6", "preact_resnet18", "torchvision"}


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_options_build_networks_for_the_data_set(path):
    assert path.read_text().startswith("# ")
    config = OmegaConf.create(
        {"dataset": {"info": {"shape": [3, 32, 32], "num_classes": 4}}, "network": {}}
    )
    config.network = OmegaConf.load(path)
    network = instantiate(config.network)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert last.out_features == 4
