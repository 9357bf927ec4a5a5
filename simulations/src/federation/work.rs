//! What a thread does for one client.

use super::queue::Key;
use super::{Contribution, Device, Scenario, Trained, Work};
use bytes::Bytes;
use fedveil_client_core::{Effect, Input, Refusal};
use fedveil_coordinator_core::Millis;
use fedveil_proto::Kind;

pub(super) enum Task<'a> {
    Due {
        client: usize,
        session: u64,
        device: Box<Device>,
        stimulus: Stimulus,
    },
    /// Computes what a training will give, before it ends.
    Ahead {
        key: Key,
        client: usize,
        device: &'a Device,
        round: u32,
    },
}

pub(super) enum Stimulus {
    Message(Kind, Bytes),
    Training(u32, Option<Result<Trained, String>>),
}

pub(super) enum Done {
    Due {
        client: usize,
        session: u64,
        device: Box<Device>,
        outcome: Result<Vec<Effect>, Refusal>,
    },
    /// A training that was due takes longer, as computing it has told, by so many milliseconds.
    Late {
        client: usize,
        session: u64,
        device: Box<Device>,
        round: u32,
        result: Result<Trained, String>,
        late: u64,
    },
    Ahead {
        key: Key,
        result: Result<Trained, String>,
        late: u64,
    },
}

impl Task<'_> {
    pub(super) fn run(self, scenario: &impl Scenario, now: Millis) -> Done {
        match self {
            Self::Ahead { key, client, device, round } => {
                let result = train(scenario, client, round, device);
                Done::Ahead { key, result, late: scenario.took(client, round) }
            }
            Self::Due { client, session, mut device, stimulus } => {
                let input = match stimulus {
                    Stimulus::Message(kind, bytes) => Input::Message(kind, bytes),
                    Stimulus::Training(_, Some(result)) => trained(result, &mut device),
                    Stimulus::Training(round, None) => {
                        let result = train(scenario, client, round, &device);
                        let late = scenario.took(client, round);
                        if late > 0 {
                            return Done::Late { client, session, device, round, result, late };
                        }
                        trained(result, &mut device)
                    }
                };
                let outcome = device.handle(input, now);
                Done::Due { client, session, device, outcome }
            }
        }
    }
}

fn train(scenario: &impl Scenario, client: usize, round: u32, device: &Device) -> Result<Trained, String> {
    let (newest, plan) = device.task().ok_or("no model to train")?;
    let (model, staleness) = device.started().unwrap_or((newest, 0));
    scenario.contribute(&Work { client, round, model, staleness, plan, memory: device.memory() })
}

/// A training has ended: the device keeps what it is to keep, and contributes the rest.
fn trained(result: Result<Trained, String>, device: &mut Device) -> Input {
    match result {
        Ok(Trained { contribution, memory }) => {
            if let Some(memory) = memory {
                device.remember(memory);
            }
            match contribution {
                Contribution::Update(update) => Input::Trained(update),
                Contribution::DangerUnbounded(values) => Input::DangerUnbounded(values),
            }
        }
        Err(reason) => Input::TrainingFailed(reason),
    }
}
