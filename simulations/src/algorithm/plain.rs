//! Algorithms that a plan alone can say: clients train by its settings, and its optimiser moves the model.

use super::options::{Kind, OptionSpec, Options};
use super::registry::{AlgorithmSpec, Needs, Unit};
use super::weighted::{REPORTED_WEIGHTS, Ratio, weighed};
use super::{Algorithm, AlgorithmError, Given, Task};
use crate::training::update;
use fedveil_aggregation::optimizer::{ServerOptimizer, ServerStep};
use fedveil_proto_plan::{AdaptiveOptimizer, TaskPlan};
use std::fmt;
use std::sync::Arc;

pub(super) const FEDAVG: AlgorithmSpec = AlgorithmSpec {
    name: "fedavg",
    title: "FedAvg",
    paper: "McMahan et al. 2017, arXiv:1602.05629",
    summary: "epochs of SGD at the client, the mean of the updates at the server",
    needs: needs_of_weights,
    units: &[Unit::None, Unit::User],
    why_not: NO_EXAMPLE_NOISE,
    options: &[WEIGHTS],
    client_keeps: "nothing",
    server_keeps: "nothing",
    build: |options| Planned::shaped(options, |_| ()),
};

pub(super) const FEDAVGM: AlgorithmSpec = AlgorithmSpec {
    name: "fedavgm",
    title: "FedAvgM",
    paper: "Hsu, Qi, Brown 2019, arXiv:1909.06335",
    summary: "FedAvg with momentum at the server",
    options: &[
        OptionSpec {
            key: "momentum",
            kind: Kind::Number { least: 0.0, most: 0.999, default: 0.9 },
            meaning: "share of the server's momentum that stays",
        },
        SERVER_RATE,
        WEIGHTS,
    ],
    server_keeps: "a momentum, as long as the model",
    build: |options| {
        let (momentum, rate) = (options.number("momentum"), options.number(SERVER_RATE.key));
        Planned::shaped(options, move |plan| {
            plan.server.momentum = momentum;
            plan.server.learning_rate = rate;
        })
    },
    ..FEDAVG
};

pub(super) const FEDPROX: AlgorithmSpec = AlgorithmSpec {
    name: "fedprox",
    title: "FedProx",
    paper: "Li et al. 2020, arXiv:1812.06127",
    summary: "local steps are pulled back towards the global model",
    units: &[Unit::None, Unit::User],
    why_not: "example-level training has no proximal term",
    options: &[
        OptionSpec {
            key: "mu",
            kind: Kind::Number { least: 0.0, most: 1_000.0, default: 0.01 },
            meaning: "μ, how strongly",
        },
        WEIGHTS,
    ],
    build: |options| {
        let mu = options.number("mu");
        Planned::shaped(options, move |plan| plan.training.proximal = (mu > 0.0).then_some(mu))
    },
    ..FEDAVG
};

pub(super) const FEDADAGRAD: AlgorithmSpec = AlgorithmSpec {
    name: "fedadagrad",
    title: "FedAdagrad",
    options: &[ADAPTIVE_RATE, NO_MEAN, TAU, WEIGHTS],
    build: |options| adaptive("adagrad", options),
    ..FEDADAM
};

pub(super) const FEDADAM: AlgorithmSpec = AlgorithmSpec {
    name: "fedadam",
    title: "FedAdam",
    paper: "Reddi et al. 2021, arXiv:2003.00295",
    summary: "a server step size of its own for each parameter",
    options: &[ADAPTIVE_RATE, BETA1, BETA2, TAU, WEIGHTS],
    server_keeps: "two means, each as long as the model",
    build: |options| adaptive("adam", options),
    ..FEDAVG
};

pub(super) const FEDYOGI: AlgorithmSpec = AlgorithmSpec {
    name: "fedyogi",
    title: "FedYogi",
    build: |options| adaptive("yogi", options),
    ..FEDADAM
};

pub(super) const SERVER_RATE: OptionSpec = OptionSpec {
    key: "server_learning_rate",
    kind: Kind::Above { bound: 0.0, most: 1_000.0, default: 1.0 },
    meaning: "the server's step size",
};
const ADAPTIVE_RATE: OptionSpec =
    OptionSpec { kind: Kind::Above { bound: 0.0, most: 1_000.0, default: 0.01 }, ..SERVER_RATE };
const BETA1: OptionSpec = OptionSpec {
    key: "beta1",
    kind: Kind::Number { least: 0.0, most: 0.999, default: 0.9 },
    meaning: "β₁, share of the mean of updates that stays",
};
const NO_MEAN: OptionSpec =
    OptionSpec { kind: Kind::Number { least: 0.0, most: 0.999, default: 0.0 }, ..BETA1 };
const BETA2: OptionSpec = OptionSpec {
    key: "beta2",
    kind: Kind::Number { least: 0.0, most: 0.9999, default: 0.99 },
    meaning: "β₂, share of the mean of squares that stays",
};
const TAU: OptionSpec = OptionSpec {
    key: "tau",
    kind: Kind::Above { bound: 0.0, most: 1_000.0, default: 1e-3 },
    meaning: "τ, what bounds the step sizes; a small one adapts more",
};

/// Why no algorithm here is for example-level plans: the agent of a real device trains with that noise.
pub(super) const NO_EXAMPLE_NOISE: &str = "a simulated client's step adds no noise for single examples";

/// Whether clients with more examples count for more, as in the paper, which takes their word for how many they have.
pub(super) const WEIGHTS: OptionSpec = OptionSpec {
    key: "weights",
    kind: Kind::Word(&["uniform", "examples"]),
    meaning: "what a client counts for: as much as any other, or by its examples",
};

pub(super) fn needs_of_weights(options: &Options) -> Needs {
    match options.word(WEIGHTS.key) {
        "examples" => Needs::EveryUpdate(REPORTED_WEIGHTS),
        _ => Needs::Sums,
    }
}

fn adaptive(name: &'static str, options: &Options) -> Arc<dyn Algorithm> {
    let rate = options.number(SERVER_RATE.key);
    let (beta1, tau) = (options.number("beta1"), options.number("tau"));
    let beta2 = if name == "adagrad" { 0.0 } else { options.number("beta2") };
    Planned::shaped(options, move |plan| {
        plan.server.learning_rate = rate;
        plan.server.momentum = 0.0;
        plan.server.optimizer = Some(AdaptiveOptimizer { name: name.to_owned(), beta1, beta2, tau });
    })
}

/// What a plan can say.
pub(super) struct Planned {
    shape: Box<dyn Fn(&mut TaskPlan) + Send + Sync>,
    weighted: bool,
}

impl Planned {
    /// Expects the option [`WEIGHTS`].
    pub(super) fn shaped(
        options: &Options,
        shape: impl Fn(&mut TaskPlan) + Send + Sync + 'static,
    ) -> Arc<dyn Algorithm> {
        Arc::new(Self { shape: Box::new(shape), weighted: options.word(WEIGHTS.key) == "examples" })
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned").field("weighted", &self.weighted).finish_non_exhaustive()
    }
}

impl Algorithm for Planned {
    fn control(&self, _parameters: usize) -> usize {
        usize::from(self.weighted)
    }

    fn plan(&self, plan: &mut TaskPlan) {
        (self.shape)(plan);
    }

    fn client(&self, task: &Task<'_>, _memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let mut vector = update(task.spec, task.global, task.data, task.plan, task.seed)?;
        if self.weighted {
            vector = weighed(vector, task.data.len());
        }
        Ok(vector.into())
    }

    fn server(&self, planned: ServerOptimizer) -> Option<Arc<dyn ServerStep>> {
        self.weighted.then(|| Arc::new(Ratio(planned)) as Arc<dyn ServerStep>)
    }
}
