//! What is due at one instant, computed on a pool of threads and merged in the order of the queue.

use super::queue::{Key, Pending};
use super::{Contribution, Device, Federation, Part, Scenario, Trained, Work, pool};
use bytes::Bytes;
use fedveil_client_core::{Effect, Input, Refusal};
use fedveil_coordinator_core::{Command, Job, Millis};
use fedveil_proto::Kind;
use std::collections::BTreeSet;

impl<S: Scenario> Federation<S> {
    #[expect(clippy::vec_box, reason = "a job waits in its box, and leaves the queue in it")]
    pub(super) fn compute(&mut self, jobs: Vec<Box<Job>>) {
        let (store, secrets, scenario) = (&*self.store, &self.secrets, &self.scenario);
        let computed = pool::map(self.threads, jobs, |job| {
            let name = match *job {
                Job::Unmask { .. } => "unmask",
                Job::Sum { .. } => "sum",
                Job::Close(_) => "close",
            };
            scenario.measured(Part::Job(name), || job.run(store, secrets))
        });
        for computed in computed {
            self.command(Command::Computed(computed));
        }
    }

    /// What is due for distinct clients at one instant, and trainings of others that are asked for next.
    pub(super) fn clients(&mut self, due: Vec<Pending>) {
        let (mut work, mut busy, mut untrained) = (Vec::new(), BTreeSet::new(), 0);
        for pending in due {
            let (client, session, stimulus) = match pending {
                Pending::Message { session, message } => {
                    (message.client, session, Stimulus::Message(message.kind, message.bytes))
                }
                Pending::Training { session, client, round, result } => {
                    // In a later round, what it would train for is over.
                    if self.devices.get(&client).is_none_or(|device| device.round() != round) {
                        continue;
                    }
                    untrained += usize::from(result.is_none());
                    (client, session, Stimulus::Training(round, result))
                }
                Pending::Job(_) | Pending::CheckIn => continue,
            };
            if self.with_session(client, session).is_some()
                && let Some(device) = self.devices.remove(&client)
            {
                busy.insert(client);
                work.push(Task::Due { client, session, device, stimulus });
            }
        }
        if untrained > 0 {
            for (key, client, session, round) in self.queue.untrained(self.at_once.saturating_sub(untrained))
            {
                if let Some(device) = self.devices.get(&client)
                    && device.session == Some(session)
                    && !self.scenario.looks_at_others(client)
                {
                    work.push(Task::Ahead { key, client, device, round });
                }
            }
        }
        let (scenario, now) = (&self.scenario, self.now);
        let draws = self.driver.core().terms().guarantee.has_noise();
        let threads = if work.iter().all(|task| task.is_light(draws)) { 1 } else { self.threads };
        let done = pool::map(threads, work, |task| task.run(scenario, now));
        let mut outcomes = Vec::new();
        for done in done {
            match done {
                Done::Due { client, session, device, outcome } => {
                    self.devices.insert(client, device);
                    outcomes.push((client, session, outcome));
                }
                Done::Late { client, session, device, round, result, late } => {
                    self.devices.insert(client, device);
                    let end = Millis(now.0.saturating_add(late));
                    let result = Some(result);
                    self.queue.push(end, Pending::Training { session, client, round, result });
                }
                Done::Ahead { key, result, late: 0 } => self.queue.trained(key, result),
                Done::Ahead { key, result, late } => self.queue.trained_late(key, result, late),
            }
        }
        for (client, session, outcome) in outcomes {
            self.follow(client, session, outcome);
        }
    }
}

/// What a thread does for one client.
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
    /// Whether it takes a client so little that a thread would be woken for nothing: checks that it shares with the
    /// others, and the opening of a round in which it `draws` no noise.
    pub(super) fn is_light(&self, draws: bool) -> bool {
        let Self::Due { stimulus: Stimulus::Message(kind, _), .. } = self else { return false };
        match kind {
            Kind::Plan | Kind::Publication | Kind::Model | Kind::RoundClosed | Kind::Reject => true,
            Kind::RoundOpen => !draws,
            _ => false,
        }
    }

    pub(super) fn run(self, scenario: &impl Scenario, now: Millis) -> Done {
        match self {
            Self::Ahead { key, client, device, round } => {
                let result = train(scenario, client, round, device);
                Done::Ahead { key, result, late: scenario.took(client, round) }
            }
            Self::Due { client, session, mut device, stimulus } => {
                let mut part = Part::Contribution;
                let input = match stimulus {
                    Stimulus::Message(kind, bytes) => {
                        part = Part::Client(kind);
                        Input::Message(kind, bytes)
                    }
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
                let outcome = scenario.measured(part, || device.handle(input, now));
                Done::Due { client, session, device, outcome }
            }
        }
    }
}

fn train(scenario: &impl Scenario, client: usize, round: u32, device: &Device) -> Result<Trained, String> {
    let (newest, plan) = device.task().ok_or("no model to train")?;
    let (model, staleness) = device.started().unwrap_or((newest, 0));
    let work = Work { client, round, model, staleness, plan, memory: device.memory() };
    scenario.measured(Part::Training, || scenario.contribute(&work))
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
