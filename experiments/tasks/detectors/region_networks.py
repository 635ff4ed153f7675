"""The networks of Mask R-CNN and Cascade Mask R-CNN on pooled regions: classes and boxes, and masks."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

BOX_CELLS, MASK_CELLS = 7, 14  # of a side of pooled regions; masks are twice as fine


class BoxNetwork(nn.Module):
    """Layers on a pooled region, then a fully connected layer to scores and one to an offset for every class.

    convs: 0 for two fully connected layers of fc_width, else so many 3x3 convolutions with batch norm and one fully
    connected layer. Structure: torchvision's, without weights for the background's offset. Initialisation: mmdet's, the
    shared layers Xavier uniform, scores with std 0.01, offsets with 0.001, all biases 0.
    """

    def __init__(self, width: int, fc_width: int, classes: int, convs: int = 0):
        super().__init__()
        if convs:
            shape = (width, BOX_CELLS, BOX_CELLS)
            self.layers = FastRCNNConvFCHead(shape, [width] * convs, [fc_width], norm_layer=nn.BatchNorm2d)
        else:
            self.layers = TwoMLPHead(width * BOX_CELLS**2, fc_width)
        self.scores, self.offsets = nn.Linear(fc_width, classes + 1), nn.Linear(fc_width, 4 * classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.offsets.weight, std=0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """[N, width, 7, 7] to logits [N, classes + 1], the background last, and offsets [N, classes, 4], float32."""
        features = self.layers(regions)
        offsets = self.offsets(features).float()
        return self.scores(features).float(), offsets.unflatten(1, (-1, 4))


class MaskNetwork(nn.Sequential):
    """3x3 convolutions with ReLU, a 2x2 transposed convolution of stride 2 with ReLU, and a 1x1 convolution: the logits
    of a mask for every class, [N, width, 14, 14] to [N, classes, 28, 28].

    Structure: torchvision's, without weights for the background. Initialisation: mmdet's, Kaiming normal by the
    fan-out, biases 0.
    """

    def __init__(self, width: int, classes: int, convs: int = 4):
        predictor = MaskRCNNPredictor(width, width, classes)
        for layer in (predictor.conv5_mask, predictor.mask_fcn_logits):
            nn.init.zeros_(layer.bias)
        super().__init__(MaskRCNNHeads(width, (width,) * convs, 1), predictor)
