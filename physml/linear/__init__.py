"""Linear models in float64: ridge with exact leave-one-out, evidence, elastic net, logistic.

All of it is NumPy and LAPACK on the host, hence float64 whatever JAX's global flag says (a
float32 input is promoted). Extensive targets (sums over atoms) need no intercept, so
`fit_intercept` is False by default: prediction(two copies) = 2 * prediction.

Columns are never centred unless `fit_intercept=True`. `scale=True` divides each column by its
root mean square before the fit (by its standard deviation with an intercept), so that the
penalty treats columns of different magnitude alike; `scale=False`, the default, is the textbook
penalty on the weights as they are. Weights always refer to the columns as given.
"""

from physml.linear.elastic_net import ElasticNetPath, elastic_net_path
from physml.linear.evidence import Evidence, evidence, predictive_std
from physml.linear.logistic import Logistic, logistic, probabilities
from physml.linear.ridge import RidgePath, predict, ridge_path, weighted_ridge
from physml.linear.validation import (
    LearningCurve,
    OutOfFold,
    cross_predict,
    grouped_folds,
    learning_curve,
)

__all__ = [
    "ElasticNetPath",
    "Evidence",
    "LearningCurve",
    "Logistic",
    "OutOfFold",
    "RidgePath",
    "cross_predict",
    "elastic_net_path",
    "evidence",
    "grouped_folds",
    "learning_curve",
    "logistic",
    "predict",
    "predictive_std",
    "probabilities",
    "ridge_path",
    "weighted_ridge",
]
