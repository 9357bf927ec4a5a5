//! Numbers computed with dp-accounting.

use serde::Deserialize;

/// The file `tests/vectors/privacy/dp_accounting.json`.
#[derive(Deserialize)]
pub(super) struct Vectors {
    pub(super) gaussian_subsampled: Vec<Sampled>,
    pub(super) rdp_points: Vec<Curve>,
    pub(super) analytic_gaussian: Vec<Analytic>,
}

#[derive(Deserialize)]
pub(super) struct Sampled {
    pub(super) q: f64,
    pub(super) sigma: f64,
    #[serde(rename = "T")]
    pub(super) rounds: u32,
    pub(super) delta: f64,
    pub(super) eps_rdp: f64,
    pub(super) order: f64,
    pub(super) eps_pld: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct Curve {
    pub(super) q: f64,
    pub(super) sigma: f64,
    pub(super) orders: Vec<f64>,
    pub(super) rdp: Vec<Option<f64>>,
}

#[derive(Deserialize)]
pub(super) struct Analytic {
    pub(super) eps: f64,
    pub(super) delta: f64,
    pub(super) sigma: f64,
}

impl Vectors {
    pub(super) fn load() -> Self {
        let text = include_str!("../../../tests/vectors/privacy/dp_accounting.json");
        let vectors: Self = serde_json::from_str(text).unwrap();
        let counts =
            (vectors.gaussian_subsampled.len(), vectors.rdp_points.len(), vectors.analytic_gaussian.len());
        assert_eq!(counts, (336, 20, 24));
        vectors
    }
}

impl Sampled {
    pub(super) fn name(&self) -> String {
        format!("q = {}, σ = {}, T = {}, δ = {}", self.q, self.sigma, self.rounds, self.delta)
    }
}
