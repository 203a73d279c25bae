"""Networks, and output layers that follow the classes and tasks of a stream."""

from rwalk.models.calling import ModelCall
from rwalk.models.cnn import paper_cnn
from rwalk.models.current_head import CurrentClassifier
from rwalk.models.dynamic import DynamicModule, MultiTaskModule, adapt
from rwalk.models.growing import grow
from rwalk.models.mlp import mlp
from rwalk.models.multi_head import MultiHeadClassifier, MultiTaskNetwork
from rwalk.models.network import Features, attach_head
from rwalk.models.registry import HEADS, MODELS, build_model
from rwalk.models.resnet import resnet18, resnet32, slim_resnet18
from rwalk.models.single_head import IncrementalClassifier, MaskedClassifier
from rwalk.models.text import text_mlp

__all__ = [
    "HEADS",
    "MODELS",
    "CurrentClassifier",
    "DynamicModule",
    "Features",
    "IncrementalClassifier",
    "MaskedClassifier",
    "ModelCall",
    "MultiHeadClassifier",
    "MultiTaskModule",
    "MultiTaskNetwork",
    "adapt",
    "attach_head",
    "build_model",
    "grow",
    "mlp",
    "paper_cnn",
    "resnet18",
    "resnet32",
    "slim_resnet18",
    "text_mlp",
]
