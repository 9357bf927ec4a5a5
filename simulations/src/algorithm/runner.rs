//! An algorithm bound to a model and a population: what a scenario calls.

use super::registry::Refused;
use super::{Algorithm, AlgorithmError, AlgorithmSpec, Choice, Task};
use crate::federation::{Attendance, Work};
use crate::sampling::distinct;
use chacha20::ChaCha20Rng;
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_learning::{Dataset, ModelSpec, model_file};
use fedveil_proto_plan::{TaskPlan, Terms};
use rand_core::SeedableRng;
use std::sync::Arc;

/// Sets the draw of a batch apart from other draws under the same seed.
const SAMPLE: u64 = 0x5361_6d70_6c65_0001;

/// Runs an algorithm in a federation: makes the plan and the initial state, computes for clients, reads global states.
#[derive(Debug, Clone)]
pub struct Runner {
    about: AlgorithmSpec,
    algorithm: Arc<dyn Algorithm>,
    spec: ModelSpec,
    clients: u32,
}

impl Runner {
    /// The algorithm of that name. It writes into the plan what it asks of it, the number of parameters included, and
    /// refuses a plan whose mode, privacy or model it is not valid with.
    pub fn new(choice: &Choice, spec: ModelSpec, clients: u32, plan: &mut TaskPlan) -> Result<Self, Refused> {
        Self::of(choice.spec()?, choice, spec, clients, plan)
    }

    /// The same for an algorithm of your own.
    pub fn of(
        about: &AlgorithmSpec,
        choice: &Choice,
        spec: ModelSpec,
        clients: u32,
        plan: &mut TaskPlan,
    ) -> Result<Self, Refused> {
        let options = about.options(choice)?;
        let algorithm = (about.build)(&options);
        if let Some(reason) = algorithm.refuses(&spec) {
            return Err(Refused::Model { algorithm: about.name, reason });
        }
        algorithm.plan(plan);
        if let (Some(Attendance::Buffered { .. }), Some(found)) =
            (algorithm.attendance(), plan.cohort.population)
        {
            return Err(Refused::Sampling { algorithm: about.name, found });
        }
        let length = spec.parameters() + algorithm.control(spec.parameters());
        plan.model.parameters = u32::try_from(length).unwrap_or(u32::MAX);
        about.check(&options, plan, &plan.check()?)?;
        Ok(Self { about: *about, algorithm, spec, clients })
    }

    /// The algorithm's entry in the registry.
    pub fn about(&self) -> &AlgorithmSpec {
        &self.about
    }

    /// The global state that the task starts from, as a model file: these parameters, and zeros behind them.
    pub fn initial(&self, parameters: &[f32]) -> Result<Vec<u8>, AlgorithmError> {
        let file = model_file::to_safetensors(&self.spec, parameters)?;
        let control = self.algorithm.control(parameters.len());
        if control == 0 { Ok(file) } else { extended(&file, control) }
    }

    /// Who connects when, where the algorithm has a way of its own.
    pub fn attendance(&self) -> Option<Attendance> {
        self.algorithm.attendance()
    }

    /// The step of the server, where the plan's optimiser is not all of it.
    pub fn server(&self, terms: &Terms) -> Option<Arc<dyn ServerStep>> {
        self.algorithm.server(terms.optimizer)
    }

    /// Which of its `held` rows a client's step looks at, under this seed; none: all. A caller who makes a dataset of
    /// these alone, in this order, spares itself the others.
    pub fn sample(&self, held: usize, seed: u64) -> Option<Vec<usize>> {
        let batch = self.algorithm.batch()?.get();
        // Another stream than that of the training, which may shuffle by the seed.
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ SAMPLE);
        (batch < held).then(|| distinct(batch, held, &mut rng))
    }

    /// What a client contributes to a round, and what it keeps for its next one: nothing new, if there is none. `data`
    /// are the client's, or the [`sample`](Self::sample) of them under the same seed.
    pub fn contribute(
        &self,
        work: &Work<'_>,
        data: &Dataset,
        seed: u64,
    ) -> Result<(Vec<f32>, Option<Vec<u8>>), AlgorithmError> {
        let &Work { round, model, staleness, plan, memory, .. } = work;
        let state = self.state(model)?;
        let (global, control) = state.split_at(self.spec.parameters());
        let memory = memory.map(memory_from_bytes).transpose()?;
        let (spec, clients) = (&self.spec, self.clients);
        let drawn = self.sample(data.len(), seed).map(|rows| data.subset(&rows)).transpose()?;
        let data = drawn.as_ref().unwrap_or(data);
        let task = Task { spec, plan, global, control, staleness, data, round, clients, seed };
        let given = self.algorithm.client(&task, memory.as_deref())?;
        if given.vector.len() != state.len() {
            let found = given.vector.len();
            return Err(AlgorithmError::Length { what: "a client's vector", found, expected: state.len() });
        }
        let bytes = |memory: Vec<f32>| memory.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok((given.vector, given.memory.map(bytes)))
    }

    /// The parameters of a global state.
    pub fn parameters(&self, file: &[u8]) -> Result<Vec<f32>, AlgorithmError> {
        let mut state = self.state(file)?;
        state.truncate(self.spec.parameters());
        Ok(state)
    }

    /// The parameters that a client uses itself, given what it keeps.
    pub fn personal(&self, file: &[u8], memory: Option<&[u8]>) -> Result<Vec<f32>, AlgorithmError> {
        let memory = memory.map(memory_from_bytes).transpose()?;
        Ok(self.algorithm.personal(&self.spec, &self.parameters(file)?, memory.as_deref()))
    }

    fn state(&self, file: &[u8]) -> Result<Vec<f32>, AlgorithmError> {
        let (_, data) = sections(file)?;
        let (values, rest) = data.as_chunks::<4>();
        let expected = self.spec.parameters() + self.algorithm.control(self.spec.parameters());
        if values.len() != expected || !rest.is_empty() {
            return Err(AlgorithmError::Length { what: "the global state", found: values.len(), expected });
        }
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Name of the tensor behind those of the model.
const CONTROL: &str = "control";

/// Header and data of a safetensors file.
fn sections(file: &[u8]) -> Result<(&[u8], &[u8]), AlgorithmError> {
    let cut = || AlgorithmError::Malformed("the global state ends inside its header".to_owned());
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
    rest.split_at_checked(length).ok_or_else(cut)
}

/// The file with one more tensor behind the others, of so many zeros.
fn extended(file: &[u8], control: usize) -> Result<Vec<u8>, AlgorithmError> {
    let (header, data) = sections(file)?;
    let malformed = |error: serde_json::Error| AlgorithmError::Malformed(format!("global state: {error}"));
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(malformed)?;
    let end = data.len() + 4 * control;
    let tensor = serde_json::json!({ "dtype": "F32", "shape": [control], "data_offsets": [data.len(), end] });
    header.insert(CONTROL.to_owned(), tensor);
    let mut header = serde_json::to_vec(&header).map_err(malformed)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend_from_slice(data);
    file.resize(file.len() + 4 * control, 0);
    Ok(file)
}

fn memory_from_bytes(bytes: &[u8]) -> Result<Vec<f32>, AlgorithmError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(AlgorithmError::Malformed(format!(
            "a client's memory has {} bytes, no whole values",
            bytes.len()
        )));
    }
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
