//! The measurements as Markdown and as JSON.

use std::time::Duration;

use fedveil_aggregation::secagg::{Prg, ProtocolKind};
use serde_json::{Map, Value, json};

use crate::session::{ClientStep, Measured, Scenario, ServerStep};

/// What the bare cipher takes for one mask of `length` words.
pub(crate) struct CipherFloor {
    pub(crate) prg: Prg,
    pub(crate) length: usize,
    pub(crate) time: Duration,
}

/// All of one run.
pub(crate) struct Report {
    pub(crate) cipher_floors: [CipherFloor; 2],
    pub(crate) sessions: Vec<Measured>,
    pub(crate) flower: Option<Value>,
    pub(crate) curve: Vec<Measured>,
}

/// One scenario in words.
pub(crate) fn title(scenario: &Scenario) -> String {
    let Scenario { clients, neighbours, threshold, length, .. } = scenario;
    format!("{}, n = {clients}, k = {neighbours}, t = {threshold}, d = {length}", protocol(scenario))
}

fn protocol(scenario: &Scenario) -> String {
    match scenario.protocol {
        ProtocolKind::PairwiseMask => format!("{}, {}", scenario.protocol, cipher(scenario.prg)),
        ProtocolKind::RlweTwoLayer => scenario.protocol.to_string(),
    }
}

fn cipher(prg: Prg) -> &'static str {
    match prg {
        Prg::Aes256Ctr => "AES-256",
        Prg::ChaCha20 => "ChaCha20",
        _ => "other",
    }
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

fn ratio(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64()
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Measured {
    /// The upload against the vector in the clear, two bytes a value.
    fn expansion(&self) -> f64 {
        self.input_bytes as f64 / (2 * self.scenario.length) as f64
    }

    /// What the choice of the protocol decides, per client: encoding and masking, and its part of adding and unmasking.
    fn decided(&self) -> Duration {
        let server = self.server[&ServerStep::Collect] + self.server[&ServerStep::Sum];
        self.client[&ClientStep::Submit] + server / self.scenario.clients as u32
    }
}

impl Report {
    pub(crate) fn print(&self) {
        self.print_sessions();
        self.print_steps();
        self.print_masking();
        self.print_flower();
        self.print_curve();
    }

    fn print_sessions(&self) {
        println!(
            "## Sessions\n\nCPU time of one thread; a client's is the median of all that survive. Plain: the same vectors in the clear.\n"
        );
        println!(
            "| protocol | n | k | t | client ms | × plain | server s | × plain | upload × clear | up MiB | down MiB | sum MiB | memory MiB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for session in &self.sessions {
            let Scenario { clients, neighbours, threshold, .. } = session.scenario;
            let memory =
                session.memory_growth.map_or("?".to_owned(), |bytes| format!("{:.1}", mib(bytes as usize)));
            println!(
                "| {} | {clients} | {neighbours} | {threshold} | {:.1} | {:.1} | {:.3} | {:.1} | {:.3} | {:.3} | {:.3} | {:.1} | {memory} |",
                protocol(&session.scenario),
                ms(session.client_total),
                ratio(session.client_total, session.plain_client),
                session.server_total().as_secs_f64(),
                ratio(session.server_total(), session.plain_server),
                session.expansion(),
                mib(session.bytes_up),
                mib(session.bytes_down),
                mib(session.accumulator_bytes),
            );
        }
    }

    fn print_steps(&self) {
        let header = |role: &str, unit: &str| {
            println!("\n## {role}, by step, {unit}\n");
            let titles: Vec<_> = self
                .sessions
                .iter()
                .map(|session| {
                    format!(
                        "{}, n = {}, k = {}",
                        protocol(&session.scenario),
                        session.scenario.clients,
                        session.scenario.neighbours
                    )
                })
                .collect();
            println!("| step | {} |", titles.join(" | "));
            println!("|---|{}", "---|".repeat(titles.len()));
        };
        let row = |name: &str, value: &dyn Fn(&Measured) -> Duration| {
            let cells: Vec<_> =
                self.sessions.iter().map(|session| format!("{:.2}", ms(value(session)))).collect();
            println!("| {name} | {} |", cells.join(" | "));
        };
        header("Client", "ms");
        for step in ClientStep::ALL {
            row(step.name(), &|session| session.client[&step]);
        }
        row("in the clear: pack", &|session| session.plain_client);
        header("Server", "ms");
        for step in ServerStep::ALL {
            row(step.name(), &|session| session.server[&step]);
        }
        row("of which decode", &|session| session.decode);
        row("in the clear: unpack, add", &|session| session.plain_server);
    }

    fn print_masking(&self) {
        println!(
            "\n## Masking\n\nEncoding, key agreements, masks and packing of a client, for each mask, against the bare cipher on as many bytes.\n"
        );
        println!("| cipher | d | bare ms | masks | per mask ms | × bare |\n|---|---|---|---|---|---|");
        for session in
            self.sessions.iter().filter(|session| session.scenario.protocol == ProtocolKind::PairwiseMask)
        {
            let (per_mask, floor) = self.per_mask(session);
            println!(
                "| {} | {} | {:.3} | {} | {:.3} | {:.2} |",
                cipher(session.scenario.prg),
                floor.length,
                ms(floor.time),
                session.scenario.neighbours + 1,
                ms(per_mask),
                ratio(per_mask, floor.time),
            );
        }
    }

    fn per_mask(&self, session: &Measured) -> (Duration, &CipherFloor) {
        let masks = session.scenario.neighbours as u32 + 1;
        let floor = self.cipher_floors.iter().find(|floor| floor.prg == session.scenario.prg);
        (session.client[&ClientStep::Submit] / masks, floor.expect("every cipher was measured"))
    }

    /// Sessions in the setting that Flower's ran in.
    fn print_flower(&self) {
        let Some(flower) = &self.flower else { return };
        let seconds = |name: &str| flower[name].as_f64().unwrap_or(f64::NAN);
        let unmask = flower["server_stages_cpu_s"]["unmask"].as_f64().unwrap_or(f64::NAN);
        println!(
            "\n## Flower {} SecAgg+\n\nn = {}, k = {}, t = {}, {} drop-outs, d = {}.\n",
            flower["flwr"].as_str().unwrap_or("?"),
            flower["clients"],
            flower["neighbours"],
            flower["threshold"],
            flower["dropouts"],
            flower["length"]
        );
        println!(
            "| | client ms | ratio | server unmask s | ratio | server in all s | ratio | upload MiB |\n|---|---|---|---|---|---|---|---|"
        );
        println!(
            "| Flower | {:.1} | | {unmask:.2} | | {:.2} | | {:.2} |",
            1e3 * seconds("client_cpu_s"),
            seconds("server_cpu_s"),
            mib(flower["upload_bytes"].as_u64().unwrap_or(0) as usize)
        );
        let setting = |session: &&Measured| {
            [
                ("clients", session.scenario.clients),
                ("neighbours", session.scenario.neighbours),
                ("length", session.scenario.length),
            ]
            .into_iter()
            .all(|(name, value)| flower[name] == value)
        };
        for session in self.sessions.iter().filter(setting) {
            let (client, sum, server) = (
                session.client_total.as_secs_f64(),
                session.server[&ServerStep::Sum].as_secs_f64(),
                session.server_total().as_secs_f64(),
            );
            println!(
                "| {} | {:.1} | {:.1} | {sum:.3} | {:.1} | {server:.3} | {:.1} | {:.2} |",
                protocol(&session.scenario),
                1e3 * client,
                seconds("client_cpu_s") / client,
                unmask / sum,
                seconds("server_cpu_s") / server,
                mib(session.input_bytes),
            );
        }
    }

    fn print_curve(&self) {
        if self.curve.is_empty() {
            return;
        }
        println!(
            "\n## By length\n\nPer client: encode and mask, and its part of adding, recovering and unmasking, ms.\n"
        );
        println!(
            "| k | d | pairwise-mask | rlwe-two-layer | pairwise-mask ÷ rlwe-two-layer | upload × clear |\n|---|---|---|---|---|---|"
        );
        for pair in self.curve.chunks(2) {
            let [pairwise, rlwe] = pair else { continue };
            println!(
                "| {} | {} | {:.3} | {:.3} | {:.2} | {:.2}, {:.2} |",
                pairwise.scenario.neighbours,
                pairwise.scenario.length,
                ms(pairwise.decided()),
                ms(rlwe.decided()),
                ratio(pairwise.decided(), rlwe.decided()),
                pairwise.expansion(),
                rlwe.expansion(),
            );
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "cipher_floors": self.cipher_floors.iter().map(|floor| json!({
                "cipher": cipher(floor.prg), "length": floor.length, "ms": ms(floor.time),
            })).collect::<Vec<_>>(),
            "sessions": self.sessions.iter().map(session_json).collect::<Vec<_>>(),
            "flower": self.flower,
            "curve": self.curve.iter().map(session_json).collect::<Vec<_>>(),
        })
    }
}

/// Times in milliseconds, sizes in bytes.
fn session_json(session: &Measured) -> Value {
    let Scenario { clients, neighbours, threshold, dropouts, length, .. } = session.scenario;
    let client: Map<_, _> =
        session.client.iter().map(|(step, &time)| (step.name().to_owned(), json!(ms(time)))).collect();
    let server: Map<_, _> =
        session.server.iter().map(|(step, &time)| (step.name().to_owned(), json!(ms(time)))).collect();
    json!({
        "protocol": session.scenario.protocol.name(),
        "cipher": cipher(session.scenario.prg),
        "clients": clients,
        "neighbours": neighbours,
        "threshold": threshold,
        "dropouts": dropouts,
        "length": length,
        "ring_bits": session.ring_bits,
        "client_ms": ms(session.client_total),
        "client_steps_ms": client,
        "server_ms": ms(session.server_total()),
        "server_steps_ms": server,
        "decode_ms": ms(session.decode),
        "plain_client_ms": ms(session.plain_client),
        "plain_server_ms": ms(session.plain_server),
        "input_bytes": session.input_bytes,
        "bytes_up": session.bytes_up,
        "bytes_down": session.bytes_down,
        "accumulator_bytes": session.accumulator_bytes,
        "memory_growth_bytes": session.memory_growth,
    })
}
