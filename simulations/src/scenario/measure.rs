//! What is measured of a model while a scenario runs, outside of the protocol and at no cost in it.

use fedveil_learning::{Dataset, Metrics, ModelSpec, evaluate, permutation};

use super::{Fleet, ScenarioError};
use crate::federation::stream;
use crate::record::ClientAccuracy;

/// Rows of the test set that are made a table at a time, which bounds the memory of a measurement.
const ROWS_AT_ONCE: usize = 1024;

/// What to measure models on, besides the test rows of a fleet.
pub struct Measure {
    spec: ModelSpec,
    clients: Vec<usize>,
}

/// What was measured of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Share of the test rows that it labels right.
    pub accuracy: f64,
    /// Mean cross-entropy on the test rows, in nats.
    pub loss: f64,
    /// How well it does on the data of single clients.
    pub clients: Option<ClientAccuracy>,
    /// Share of a backdoor's examples that it labels as the attacker wants.
    pub attack_success: Option<f64>,
}

impl Measure {
    /// With a sample of `clients` honest clients of a fleet of `population`, drawn under `seed`.
    pub fn new(spec: ModelSpec, fleet: &Fleet, population: u32, clients: u32, seed: u64) -> Self {
        let mut sample = Vec::new();
        if clients > 0 {
            sample = permutation(population as usize, &mut stream(seed, "measured clients", 0, 0));
            sample.retain(|client| fleet.poisoned().binary_search(client).is_err());
            sample.truncate(clients as usize);
        }
        Self { spec, clients: sample }
    }

    /// Measures a global state, a safetensors file, on what the fleet holds; each client with what is its own in the model,
    /// which its `memory` has.
    pub fn of<'m>(
        &self,
        fleet: &Fleet,
        model: &[u8],
        memory: impl Fn(usize) -> Option<&'m [u8]>,
    ) -> Result<Measured, ScenarioError> {
        let wrong = |error: &dyn std::fmt::Display| ScenarioError::section("evaluation", error);
        let parameters = fleet.runner().parameters(model).map_err(|error| wrong(&error))?;
        let on = |data: &Dataset| evaluate(&self.spec, &parameters, data).map_err(|error| wrong(&error));
        let test = &fleet.data().test;
        let rows: Vec<u32> = (0..test.rows() as u32).collect();
        let (mut accuracy, mut loss) = (0.0, 0.0);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let data = test.dataset(rows).map_err(|error| wrong(&error))?;
            let Metrics { accuracy: share, loss: mean } = on(&data)?;
            accuracy += rows.len() as f64 * share;
            loss += rows.len() as f64 * mean;
        }
        let (accuracy, loss) = (accuracy / test.rows() as f64, loss / test.rows() as f64);
        let of_client = |&client: &usize| {
            let own = fleet.runner().personal(model, memory(client)).map_err(|error| wrong(&error))?;
            let metrics = evaluate(&self.spec, &own, &fleet.share(client)?).map_err(|error| wrong(&error))?;
            Ok(metrics.accuracy)
        };
        let clients: Vec<f64> = self.clients.iter().map(of_client).collect::<Result<_, ScenarioError>>()?;
        let attack_success =
            fleet.bait().map(|bait| Ok::<_, ScenarioError>(on(bait)?.accuracy)).transpose()?;
        Ok(Measured { accuracy, loss, clients: ClientAccuracy::of(&clients), attack_success })
    }
}
