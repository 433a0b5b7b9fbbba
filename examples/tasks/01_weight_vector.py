"""Task 1: prune a one-dimensional weight vector, `w if abs(w) > t else 0`.

The vector is real: the 30 weights of a logistic regression over 569 breast-cancer records. Beside
it, as many weights go at random.
"""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

from secateur.masks import prune_vector

x, y = load_breast_cancer(return_X_y=True)
x = scale(x)
model = LogisticRegression().fit(x[::2], y[::2])
weights = torch.from_numpy(model.coef_[0])
pruned = prune_vector(weights, threshold=0.4)
torch.manual_seed(0)
random = weights * (pruned != 0)[torch.randperm(len(weights))]
for name, vector in {"dense": weights, "pruned": pruned, "random": random}.items():
    model.coef_ = vector.numpy()[None]
    right = model.score(x[1::2], y[1::2])
    print(
        f"{name:6}  {int(vector.count_nonzero()):2} of {len(vector)} weights  accuracy {right:.1%}"
    )
