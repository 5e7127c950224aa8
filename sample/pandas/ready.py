"""Load pandas, compute something whose result is known, and say READY."""

import sys

import numpy as np
import pandas as pd

values = np.arange(1_000_000)
table = pd.DataFrame({"remainder": values % 7, "value": values})
sums = table.groupby("remainder")["value"].sum()
if int(sums.sum()) != 499_999_500_000 or len(sums) != 7:
    sys.exit(f"wrong result: {sums}")
print("READY", flush=True)
