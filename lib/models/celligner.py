"""Celligner in pure Python: removes what separates tumours from cancer cell lines, without labels.

Source: Warren et al., Nature Communications 2021; the authors' R scripts (Celligner_ms) and Python package.

Stages: cluster each data set; find the genes that differ between its clusters; remove the directions in which
tumours vary more within clusters than cell lines do (stroma, immune cells); shift tumours onto lines by
mutual nearest neighbours. Matrices are samples × genes, log2(TPM + 1). No genes × genes matrix is ever
formed.
"""

import warnings
from numbers import Integral, Real

import igraph
import leidenalg
import numpy as np
import pandas as pd
from inmoose.limma import squeezeVar
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh, svds
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

GENE_BLOCK = 1000  # genes that are held in float64 at once
TOLERANCE = 1e-10  # of the eigensolvers, relative


class Celligner:
    """Align tumours to cell lines; settings here, results in attributes ending in `_`.

    The defaults are the published method as intended. Where an original's code does something else, the
    setting is:

    * `order`: "signed" removes directions of larger *tumour* variance, and fewer than `n_components` where there
      are fewer (with a warning); "abs" (both originals' default) also removes directions of larger *line*
      variance. See `contrastive_components`.
    * `integer_expression`: True truncates centred expression to integers before limma (the Python original).
    * `intercept`: False tests "all cluster means are 0" in place of "all are equal" (the Python original).
    * `trend`: True lets limma's prior variance follow the centred genes' means, which are rounding noise (R).
    * `min_cluster`: clusters smaller than this join the first cluster in limma's design; 3 in R.
    * `centre`: False removes components from, and matches, un-centred expression (R).
    * `n_genes`: best genes per data set; R keeps 999, since its cut at rank 1,000 is strict.

    Clusters: `n_pcs` principal components, shared-nearest-neighbour graph of `n_neighbours`, Leiden at
    `resolution` (the originals: Louvain). `k1`, `k2`, `ndist`, `fk`: see `mnn_correct`; R's `fk` is its `k1`.
    `n_components=0` skips the contrastive step.
    """

    def __init__(
        self, *, n_pcs=70, n_neighbours=20, resolution=5.0, n_genes=1000, n_components=4, order="signed",
        integer_expression=False, intercept=True, trend=False, min_cluster=1, centre=True,
        k1=5, k2=50, ndist=3, fk=5, seed=0,
    ):  # fmt: skip
        self.n_pcs, self.n_neighbours, self.resolution = n_pcs, n_neighbours, resolution
        self.n_genes, self.n_components, self.order = n_genes, n_components, order
        self.integer_expression, self.intercept, self.trend = integer_expression, intercept, trend
        self.min_cluster, self.centre = min_cluster, centre
        self.k1, self.k2, self.ndist, self.fk, self.seed = k1, k2, ndist, fk, seed

    def fit_transform(self, tumours, lines, tumour_clusters=None, line_clusters=None):
        """Aligned (tumours, lines) as arrays, in the input's precision, gene-centred unless `centre=False`.

        tumours, lines: samples × genes, the same genes in the same order; arrays, or AnnData whose `X` is
        taken. tumour_clusters, line_clusters: labels to use in place of the clustering.
        Sets `tumour_clusters_`, `line_clusters_`, `tumour_de_`, `line_de_` (as `cluster_de`), `genes_`
        (indices of the union of the top genes), `components_` (genes × n), `eigenvalues_`, `pairs_` (as
        `mnn_pairs`).
        Raises ValueError on values that are not finite, differing genes, a data set in a single cluster, or settings
        out of range.
        """
        _check_counts(n_genes=self.n_genes)
        _check_mnn(self.k1, self.k2, self.ndist, self.fk)
        tumours, lines = _matching_matrices(tumours=tumours, lines=lines)
        tumour_means, line_means = _gene_means(tumours), _gene_means(lines)
        tumours, lines = tumours - tumour_means, lines - line_means
        self.tumour_clusters_ = self._clusters(tumours, tumour_clusters, "tumours")
        self.line_clusters_ = self._clusters(lines, line_clusters, "lines")
        self.tumour_de_ = self._de(tumours, self.tumour_clusters_)
        self.line_de_ = self._de(lines, self.line_clusters_)
        best = np.minimum(self.tumour_de_["rank"], self.line_de_["rank"])
        self.genes_ = np.flatnonzero(best <= self.n_genes)
        self._find_components(tumours, lines)
        if not self.centre:
            tumours += tumour_means
            lines += line_means
        tumours, lines = self._remove_components(tumours), self._remove_components(lines)
        self.pairs_ = mnn_pairs(lines[:, self.genes_], tumours[:, self.genes_], self.k1, self.k2)
        return _correct(lines, tumours, self.genes_, self.pairs_, self.ndist, self.fk), lines

    def _clusters(self, X, labels, name):
        if labels is None:
            return cluster(X, self.n_pcs, self.n_neighbours, self.resolution, self.seed)
        return _cluster_codes(labels, len(X), f"clusters of {name}")

    def _de(self, X, clusters):
        too_small = np.bincount(clusters)[clusters] < self.min_cluster
        clusters = _cluster_codes(np.where(too_small, 0, clusters), len(X), "clusters")
        return _rank(_moderated_f(X, clusters, self.intercept, self.trend, self.integer_expression))

    def _find_components(self, tumours, lines):
        if self.n_components == 0:
            self.components_, self.eigenvalues_ = np.zeros((tumours.shape[1], 0)), np.zeros(0)
            return
        components, eigenvalues = contrastive_components(
            tumours, self.tumour_clusters_, lines, self.line_clusters_, self.n_components, self.order
        )
        if self.order == "signed":  # "abs" keeps what the originals keep
            components, eigenvalues = _of_larger_tumour_variance(components, eigenvalues)
        self.components_, self.eigenvalues_ = components, eigenvalues

    def _remove_components(self, X):
        """Residuals of each sample regressed on the components without intercept: X - X V Vᵀ, in place."""
        loadings = self.components_.astype(X.dtype)
        X -= (X @ loadings) @ loadings.T
        return X


def _of_larger_tumour_variance(components, eigenvalues):
    """Components of positive eigenvalue: the others do not set tumours apart from lines, or the other way round."""
    positive = eigenvalues > 1e-9 * np.abs(eigenvalues).max(initial=0)
    if not positive.all():
        found = f"found {positive.sum()} directions in which tumours vary more than lines"
        warnings.warn(f"n_components: {found}, fewer than {len(positive)}; only these are removed", stacklevel=4)
    return components[:, positive], eigenvalues[positive]


def cluster(X, n_pcs=70, n_neighbours=20, resolution=5.0, seed=0):
    """Integer cluster label per sample: PCA, shared-nearest-neighbour graph, Leiden at `resolution`.

    X: samples × genes. As in Seurat, an edge weighs the Jaccard index of two samples' `n_neighbours` nearest
    (each counts itself), edges below 1/15 are dropped, and samples left alone join the cluster they are most
    tied to. More components than the data have, or neighbours than a third of the samples (which tell no
    clusters apart), are cut back, and a resolution that leaves nearly every sample alone is halved, each with
    a warning. The same seed gives the same clusters. Raises ValueError where all genes are constant.
    """
    X = _matrix(X, "X")
    _check_counts(n_pcs=n_pcs, n_neighbours=n_neighbours)
    n_pcs = _at_most(n_pcs, min(X.shape) - 1, "n_pcs", X.shape)
    n_neighbours = _at_most(n_neighbours, max(2, len(X) // 3), "n_neighbours", X.shape)
    if not np.ptp(X, axis=0).any():
        raise ValueError("X: found only constant genes, expected genes that vary")
    scores = PCA(n_pcs, svd_solver="randomized", random_state=seed).fit_transform(X)
    ties = _shared_neighbours(scores, n_neighbours)
    return _join_lone_samples(_communities(ties, resolution, seed), ties)


def _shared_neighbours(scores, k):
    """Sparse symmetric samples × samples Jaccard weights, without the diagonal."""
    neighbours = NearestNeighbors(n_neighbors=k).fit(scores).kneighbors_graph(scores)
    shared = sparse.coo_array(neighbours @ neighbours.T)
    weight = shared.data / (2 * k - shared.data)
    kept = (weight >= 1 / 15) & (shared.row != shared.col)
    return sparse.csr_array((weight[kept], (shared.row[kept], shared.col[kept])), shape=shared.shape)


def _communities(ties, resolution, seed):
    half = sparse.triu(ties).tocoo()
    graph = igraph.Graph(n=ties.shape[0], edges=np.column_stack([half.row, half.col]))
    while True:
        partition = leidenalg.find_partition(
            graph,
            leidenalg.RBConfigurationVertexPartition,
            weights=half.data,
            resolution_parameter=resolution,
            seed=seed,
        )
        sizes = np.array(partition.sizes())
        if len(sizes) == 1 or (sizes > 1).sum() > 1 or resolution < 0.1:
            return np.array(partition.membership)
        warnings.warn(f"resolution: found {resolution:g}, which leaves samples alone; halved", stacklevel=4)
        resolution /= 2


def _join_lone_samples(labels, ties):
    sizes = np.bincount(labels)
    lone, groups = sizes[labels] == 1, np.flatnonzero(sizes > 1)
    if lone.any() and len(groups):
        mean_tie = ties[lone] @ (labels[:, None] == groups) / sizes[groups]
        labels[lone] = groups[mean_tie.argmax(axis=1)]
    return np.unique(labels, return_inverse=True)[1]


def cluster_de(X, clusters):
    """Genes that differ between clusters: limma's moderated F of `~ cluster`, without trend.

    X: samples × genes, log scale; clusters: a label per sample. Returns a DataFrame, one row per gene in X's
    order, with 'F' and 'rank' (1 = largest F, ties share the lower rank). Constant genes get F = 0.
    Raises ValueError with fewer than two clusters, no spare sample, or no gene that varies within clusters.
    Source: Smyth 2004; equal to R limma's F. A one-way layout is fitted in closed form, inmoose moderates.
    """
    X = _matrix(X, "X")
    return _rank(_moderated_f(X, _cluster_codes(clusters, len(X), "clusters")))


def _moderated_f(X, clusters, intercept=True, trend=False, integer=False):
    size = np.bincount(clusters)
    df_model, df_residual = len(size) - intercept, len(X) - len(size)
    _check_design(len(size), df_residual)
    design = np.eye(len(size))[clusters]
    mean, between, within = (np.zeros(X.shape[1]) for _ in range(3))
    for block in _blocks(X.shape[1]):
        x = X[:, block].astype(np.float64)
        x = np.trunc(x) if integer else x
        mean[block] = x.mean(axis=0)
        cluster_means = (design.T @ x) / size[:, None]
        between[block] = size @ (cluster_means - intercept * mean[block]) ** 2
        within[block] = ((x - cluster_means[clusters]) ** 2).sum(axis=0)
    if not within.any():
        raise ValueError("X: no gene varies within clusters, expected residual variance for limma")
    variance = squeezeVar(within / df_residual, df_residual, covariate=mean if trend else None)["var_post"]
    return np.divide(between / df_model, variance, out=np.zeros_like(between), where=between > 0)


def _check_design(n_clusters, df_residual):
    if n_clusters < 2:
        raise ValueError(f"clusters: found {n_clusters} cluster, expected two or more (raise `resolution`?)")
    if df_residual < 1:
        raise ValueError(f"clusters: found {n_clusters} clusters of one sample each, expected larger ones")


def _rank(f):
    return pd.DataFrame({"F": f, "rank": pd.Series(-f).rank(method="min").astype(int)})


def contrastive_components(tumours, tumour_clusters, lines, line_clusters, n=4, order="abs"):
    """Directions in which tumours and lines differ most in their variance within clusters.

    tumours, lines: samples × genes; clusters: a label per sample. Returns (genes × n orthonormal loadings,
    eigenvalues) of C = cov(tumours - cluster mean) - cov(lines - cluster mean), divisors n - 1. `order`:

    * "signed": eigenvectors of C, largest signed eigenvalue, so most surplus variance in tumours, first.
    * "abs": PCA of C itself, as both originals do by default: right singular vectors of C with its columns
      centred, largest singular value first. Close to, but not quite, the eigenvectors by |eigenvalue|.

    The eigenvalue is vᵀCv: negative where lines vary more. The largest loading of a component is positive. C
    is only ever applied, through the samples: memory is a float64 copy of both data sets. Raises ValueError
    on bad shapes, n outside 1 … genes - 1, an unknown order, or data that do not vary within clusters.
    """
    tumours, lines = _matching_matrices(tumours=tumours, lines=lines)
    n_genes = tumours.shape[1]
    if not (isinstance(n, Integral) and 1 <= n < n_genes):
        raise ValueError(f"n: found {n!r} components for {n_genes} genes, expected 1 to {n_genes - 1}")
    if order not in ("abs", "signed"):
        raise ValueError(f"order: found {order!r}, expected 'abs' or 'signed'")
    tumours = _scaled_residuals(tumours, _cluster_codes(tumour_clusters, len(tumours), "tumour_clusters"))
    lines = _scaled_residuals(lines, _cluster_codes(line_clusters, len(lines), "line_clusters"))
    if not (tumours.any() or lines.any()):
        raise ValueError("tumours, lines: no gene varies within clusters, expected larger clusters")

    def covariance_difference(v):
        return tumours.T @ (tumours @ v) - lines.T @ (lines @ v)

    loadings = _leading_vectors(covariance_difference, n_genes, n, order)
    eigenvalues = np.einsum("gn,gn->n", loadings, covariance_difference(loadings))
    peak = loadings[np.abs(loadings).argmax(axis=0), np.arange(n)]
    return loadings * np.sign(peak), eigenvalues


def _leading_vectors(apply, size, n, order):
    start = np.random.default_rng(0).standard_normal(size)
    if order == "signed":
        operator = LinearOperator((size, size), apply, dtype=np.float64)
        values, vectors = eigsh(operator, n, which="LA", v0=start, tol=TOLERANCE)
    else:
        centred = LinearOperator(
            (size, size),
            matvec=lambda v: (w := apply(v)) - w.mean(),
            rmatvec=lambda u: apply(u - u.mean()),
            dtype=np.float64,
        )
        _, values, vectors = svds(centred, n, v0=start, tol=TOLERANCE, return_singular_vectors="vh")
        vectors = vectors.T
    return vectors[:, np.argsort(-values)]


def _scaled_residuals(X, clusters):
    """float64 residuals R from the cluster means, scaled so that RᵀR is their covariance."""
    size = np.bincount(clusters)
    members = sparse.csr_array((1 / size[clusters], (clusters, np.arange(len(X)))))
    residuals = X.astype(np.float64)
    means = members @ residuals
    for row, label in zip(residuals, clusters, strict=True):
        row -= means[label]
    residuals /= np.sqrt(len(X) - 1)
    return residuals


def mnn_correct(reference, target, genes, k1=5, k2=50, ndist=3, fk=5):
    """Target (tumours) shifted onto reference (cell lines) by mutual nearest neighbours; all columns of it.

    reference, target: samples × genes; genes: integer indices of the columns on which neighbours are found. A
    pair: the reference is among the target's `k1` nearest references (Euclidean) and the target among the
    reference's `k2` nearest targets. Both sets are first flattened along the overall batch vector; then each
    target moves by the mean of the pair vectors of its `fk` nearest paired targets, tricube-weighted,
    bandwidth `ndist` × distance to the neighbour at 0-based position fk // 2. Where there are fewer than k1,
    k2 or fk samples, all of them are the neighbours. Raises ValueError on bad shapes, values that are not
    finite, or indices out of range.
    Source: Haghverdi et al. 2018 as modified in Celligner (no cosine normalisation; equal to R's for odd fk).
    """
    reference, target = _matching_matrices(reference=reference, target=target)
    genes = _gene_indices(genes, reference.shape[1])
    _check_mnn(k1, k2, ndist, fk)
    pairs = mnn_pairs(reference[:, genes], target[:, genes], k1, k2)
    return _correct(reference, target, genes, pairs, ndist, fk)


def _check_mnn(k1, k2, ndist, fk):
    _check_counts(k1=k1, k2=k2, fk=fk)
    if not (isinstance(ndist, Real) and ndist > 0):
        raise ValueError(f"ndist: found {ndist!r}, expected a positive number")


def _check_counts(**counts):
    for name, value in counts.items():
        if not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name}: found {value!r}, expected a positive integer")


def mnn_pairs(reference, target, k1=5, k2=50):
    """Mutual nearest neighbours: sorted rows of (reference index, target index); see `mnn_correct`."""
    near_target = _neighbour_graph(of=target, among=reference, k=k1).T
    near_reference = _neighbour_graph(of=reference, among=target, k=k2)
    return np.argwhere(near_target.multiply(near_reference).toarray())


def _neighbour_graph(of, among, k):
    """Sparse 0/1 matrix, rows `of`, columns `among`: the k nearest."""
    finder = NearestNeighbors(n_neighbors=min(k, len(among)), algorithm="brute")
    return finder.fit(among.astype(np.float64)).kneighbors_graph(of.astype(np.float64))


def _correct(reference, target, genes, pairs, ndist, fk):
    paired, mean_partner = _partner_average(pairs, len(reference))
    batch = _batch_direction(reference, target, paired, mean_partner.mean(axis=0))
    reference_shift, target_shift = _flattening(reference, batch), _flattening(target, batch)
    flat = target[:, genes] + np.outer(target_shift, batch[genes])
    weights = _tricube_weights(flat, flat[paired], ndist, fk)
    corrected = np.empty_like(target)
    for block in _blocks(target.shape[1]):
        flat = target[:, block] + np.outer(target_shift, batch[block])
        flat_reference = reference[:, block] + np.outer(reference_shift, batch[block])
        corrected[:, block] = flat + weights @ (mean_partner @ flat_reference - flat[paired])
    return corrected


def _batch_direction(reference, target, paired, partner_share):
    """Unit vector of the mean over paired targets of (mean partner - target); 0 where that is rounding."""
    blocks = _blocks(target.shape[1])
    batch = np.concatenate([partner_share @ reference[:, b] - target[paired, b].mean(0, np.float64) for b in blocks])
    length = np.linalg.norm(batch)
    return batch / length if length > 1e-12 * np.abs(reference).max() else np.zeros_like(batch)


def _partner_average(pairs, n_reference):
    """Paired targets (sorted) and the sparse matrix (paired × references) that averages their partners."""
    paired, row, n_partners = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    shape = (len(paired), n_reference)
    return paired, sparse.csr_array((1 / n_partners[row], (row, pairs[:, 0])), shape=shape)


def _flattening(X, direction):
    """Step along `direction` that takes each sample to its data set's mean location on it."""
    location = sum(X[:, block] @ direction[block] for block in _blocks(X.shape[1]))
    return location.mean() - location


def _tricube_weights(points, centres, ndist, fk):
    """Sparse weights (points × centres), rows sum to 1, over the fk nearest centres."""
    finder = NearestNeighbors(n_neighbors=min(fk, len(centres)), algorithm="brute").fit(centres)
    index = finder.kneighbors(points, return_distance=False)
    # sklearn's distances lose digits near 0, where a paired sample meets itself
    distance = np.stack([np.linalg.norm(points - centres[column], axis=1) for column in index.T], axis=1)
    order = np.argsort(distance, axis=1, kind="stable")
    index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)
    bandwidth = np.maximum(ndist * distance[:, index.shape[1] // 2], 1e-8)
    weight = (1 - np.minimum(distance / bandwidth[:, None], 1) ** 3) ** 3
    weight /= weight.sum(axis=1, keepdims=True)
    start = np.arange(0, index.size + 1, index.shape[1])
    return sparse.csr_array((weight.ravel(), index.ravel(), start), shape=(len(points), len(centres)))


def _matrix(X, name):
    X = np.asarray(getattr(X, "X", X))
    if X.ndim != 2 or X.dtype.kind not in "fiub" or min(X.shape) < 2:
        raise ValueError(f"{name}: found {X.dtype} of shape {X.shape}, expected numbers, ≥ 2 samples × ≥ 2 genes")
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if not np.isfinite(X).all():
        raise ValueError(f"{name}: found {(~np.isfinite(X)).sum()} NaN or infinite values, expected none")
    return X


def _matching_matrices(**named):
    names = [list(X.var_names) for X in named.values() if hasattr(X, "var_names")]
    if len(names) == 2 and names[0] != names[1]:
        raise ValueError(f"{', '.join(named)}: found different var_names, expected the same genes and order")
    (first, A), (second, B) = ((name, _matrix(X, name)) for name, X in named.items())
    if A.shape[1] != B.shape[1]:
        raise ValueError(f"{first}, {second}: found {A.shape[1]} and {B.shape[1]} genes, expected the same")
    return A, B


def _cluster_codes(labels, n_samples, name):
    labels = np.asarray(labels)
    if labels.shape != (n_samples,):
        raise ValueError(f"{name}: found shape {labels.shape}, expected a label for each of {n_samples} samples")
    codes, _ = pd.factorize(labels, sort=True)
    if (codes < 0).any():
        raise ValueError(f"{name}: found {(codes < 0).sum()} missing labels, expected none")
    return codes


def _gene_indices(genes, n_genes):
    genes = np.asarray(genes)
    if genes.dtype == bool and genes.shape == (n_genes,):
        genes = np.flatnonzero(genes)
    if genes.ndim != 1 or len(genes) == 0 or not np.issubdtype(genes.dtype, np.integer):
        raise ValueError(f"genes: found {genes.dtype} of shape {genes.shape}, expected at least one integer index")
    if genes.min() < -n_genes or genes.max() >= n_genes:
        raise ValueError(f"genes: found indices from {genes.min()} to {genes.max()}, expected them below {n_genes}")
    return np.arange(n_genes)[genes]


def _gene_means(X):
    return X.mean(axis=0, dtype=np.float64).astype(X.dtype)


def _blocks(n_genes):
    return [slice(start, start + GENE_BLOCK) for start in range(0, n_genes, GENE_BLOCK)]


def _at_most(value, limit, name, shape):
    if value > limit:
        size = f"{shape[0]} samples × {shape[1]} genes"
        warnings.warn(f"{name}: found {value}, cut to {limit} for {size}", stacklevel=3)
    return min(value, limit)
