//! FedNova: clients that take more steps do not pull the model further.
//!
//! The paper divides each client's update by the norm ‖aᵢ‖₁ of the weights that its gradients got, and multiplies the
//! mean by τ_eff, which it takes from the clients' own step counts. Here τ_eff is that of a planned number of steps, so
//! that nobody reports anything: the client multiplies its update by ‖a(planned)‖₁ / ‖aᵢ‖₁ and the server adds the mean.
//! For plain SGD ‖aᵢ‖₁ is the number of steps; [`accumulated`](crate::training::accumulated) has momentum and the
//! proximal term too.

use super::options::{Kind, OptionSpec};
use super::plain::{Planned, WEIGHTS, needs_of_weights};
use super::registry::{AlgorithmSpec, Unit};

pub(super) const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "fednova",
    title: "FedNova",
    paper: "Wang et al. 2020, arXiv:2007.07481",
    summary: "updates are normalised by the steps that led to them",
    needs: needs_of_weights,
    units: &[Unit::None, Unit::User],
    why_not: "with example-level noise every client takes equally many steps, so there is nothing to normalise",
    options: &[
        OptionSpec {
            key: "steps",
            kind: Kind::Count { least: 1, most: 1_000_000, default: 10 },
            meaning: "τ_eff, the steps that an update counts for",
        },
        OptionSpec {
            key: "momentum",
            kind: Kind::Number { least: 0.0, most: 0.999, default: 0.0 },
            meaning: "momentum of the clients' steps",
        },
        OptionSpec {
            key: "mu",
            kind: Kind::Number { least: 0.0, most: 1_000.0, default: 0.0 },
            meaning: "μ of a proximal term",
        },
        WEIGHTS,
    ],
    client_keeps: "nothing",
    server_keeps: "nothing",
    build: |options| {
        let (momentum, mu) = (options.number("momentum"), options.number("mu"));
        let steps = options.count("steps");
        Planned::shaped(options, move |plan| {
            plan.training.planned_steps = Some(steps);
            plan.training.momentum = (momentum > 0.0).then_some(momentum);
            plan.training.proximal = (mu > 0.0).then_some(mu);
        })
    },
};
