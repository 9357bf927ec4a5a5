//! How rows fall to clients.
//!
//! A [`Partitioner`] is what a scenario says, `{ kind = "dirichlet", alpha = 0.5 }`; [`Split::new`] makes a [`Split`] of
//! it, which says of every client which rows it holds. All randomness is ChaCha20 under the seed that is given, so that
//! equal arguments give equal splits.
//!
//! | kind | what differs between clients | every row to exactly one |
//! |---|---|---|
//! | `iid` | nothing | yes |
//! | `dirichlet` | classes and sizes: each class is divided by a Dirichlet draw | yes |
//! | `even-dirichlet` | classes: each client draws its mix; sizes are equal | yes |
//! | `size-dirichlet` | sizes, by a Dirichlet draw | yes |
//! | `power-law` | sizes, by a power of the rank | yes |
//! | `shards` | classes: rows sorted by label, cut into shards | yes |
//! | `pathological` | classes: a fixed number for each client | yes |
//! | `similarity` | classes: a share is dealt evenly, the rest sorted by label | yes |
//! | `label-sort` | classes: rows sorted by label | yes |
//! | `natural` | whatever differs in the world | of the clients that take part |
//! | `draw` | nothing, or classes | no: rows may be held by several clients |
//!
//! A split is a table of rows, four bytes each, but for `draw`: there a client's rows are drawn when they are asked for,
//! from a generator for that client alone, so that a million clients cost no memory. Beside the rows, a [`Shift`] may
//! change the features of every client in a way of its own.

mod classes;
pub mod even;
mod holdings;
mod shift;
mod sizes;

use std::borrow::Cow;

use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, permutation};
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::datasets::{DatasetError, Part};
use crate::sampling::{class_mix, distinct, multinomial};

pub use holdings::{ClientHoldings, Holdings, Quantiles};
pub use shift::Shift;

/// How rows fall to clients, as a scenario says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Partitioner {
    /// A shuffle, dealt evenly: sizes differ by at most one.
    Iid {},
    /// Every class is divided by a draw from Dir(α, …, α) over clients (Yurochkin et al., arXiv:1905.12022; Li et al.,
    /// arXiv:2102.02079). Drawn again, whole, until every client has `min_size` rows.
    Dirichlet {
        /// Concentration: small values give few clients most of a class.
        alpha: f64,
        /// The least rows of a client.
        #[serde(default = "min_size")]
        min_size: usize,
    },
    /// Every client draws a mix of classes from Dir(α · classes · class shares), and rows by it; sizes differ by at most
    /// one (Hsu, Qi and Brown, arXiv:1909.06335). See [`even`].
    EvenDirichlet {
        /// Concentration of each class.
        alpha: f64,
    },
    /// Sizes from Dir(α, …, α), rows from a shuffle.
    SizeDirichlet {
        /// Concentration: small values give few clients most of the rows.
        alpha: f64,
        /// The least rows of a client.
        #[serde(default = "min_size")]
        min_size: usize,
    },
    /// Sizes as rank^−`exponent`, rows from a shuffle. Which client has which rank is drawn.
    PowerLaw {
        /// 0 is even; 1 gives the client of rank 2 half of what the largest has.
        exponent: f64,
        /// The least rows of a client.
        #[serde(default = "min_size")]
        min_size: usize,
    },
    /// Rows sorted by label, cut into clients × `per_client` shards of equal size, dealt at random (McMahan et al.,
    /// arXiv:1602.05629, §3, with 2).
    Shards {
        /// Shards of each client.
        per_client: usize,
    },
    /// Every client has rows of exactly `classes` classes; each class is divided evenly among those that have it.
    Pathological {
        /// Classes of each client.
        classes: usize,
    },
    /// The share `gamma` of the rows is dealt evenly, the rest sorted by label and cut: γ-similarity (Karimireddy et al.,
    /// arXiv:1910.06378, §7; byzfl's `gamma_similarity_niid`, which takes the first rows where this draws them).
    Similarity {
        /// From 0, sorted, to 1, even.
        gamma: f64,
    },
    /// All rows sorted by label and cut: byzfl's `extreme_niid`, the hardest of all.
    LabelSort {},
    /// As the data says whose rows they are. With fewer clients than the data names, those that take part are drawn, and
    /// nobody holds the rows of the others.
    Natural {
        /// Clients with fewer rows are left out before.
        #[serde(default = "min_size")]
        min_size: usize,
    },
    /// Every client draws `rows` rows without replacement, whatever others draw: rows may be held by several clients.
    /// For populations larger than the data.
    Draw {
        /// Rows of each client.
        rows: usize,
        /// Where there is one, each client draws a mix of classes first, as `even-dirichlet` does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alpha: Option<f64>,
    },
}

/// Why rows could not be dealt to clients.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// No client, or more clients than rows.
    #[error(
        "{clients} clients for {rows} rows: expected 1 to {rows}, or the partition \"draw\" for more clients than rows"
    )]
    Clients {
        /// Clients asked for.
        clients: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A Dirichlet concentration that is no positive number.
    #[error("alpha {found}: expected a number above 0")]
    Alpha {
        /// What was found.
        found: f64,
    },
    /// A setting out of its range.
    #[error("{name} {found}: expected {expected}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What was found.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// A label outside `0..classes`.
    #[error("label {label} of row {row} is out of range: there are {classes} classes")]
    LabelOutOfRange {
        /// Row, from 0.
        row: usize,
        /// What was found.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A split by labels of data that have none.
    #[error(
        "the partition \"{kind}\" goes by labels, and the data have none: expected iid, power-law, size-dirichlet, natural or draw"
    )]
    NoLabels {
        /// The partition asked for.
        kind: &'static str,
    },
    /// A split by natural clients of data that name none.
    #[error("the partition \"natural\" goes by the clients that the data name, and these data name none")]
    NoOwners,
    /// More clients than the data name.
    #[error("{clients} clients by nature: expected 1 to {natural}, which have at least {min_size} rows")]
    TooFewOwners {
        /// Clients asked for.
        clients: usize,
        /// Natural clients with enough rows.
        natural: usize,
        /// The least rows of a client.
        min_size: usize,
    },
    /// No draw gave every client its least rows.
    #[error(
        "{tries} draws, and none gave every one of {clients} clients {min_size} rows: expected a larger alpha, a smaller min_size or fewer clients"
    )]
    Uneven {
        /// Draws that were made.
        tries: usize,
        /// Clients asked for.
        clients: usize,
        /// The least rows of a client.
        min_size: usize,
    },
}

/// Which rows every client holds.
#[derive(Clone, Debug)]
pub struct Split {
    clients: usize,
    rows: Rows,
    /// Whether a row may be held by several clients.
    repeats: bool,
    seed: u64,
}

#[derive(Clone, Debug)]
enum Rows {
    /// Client `i` holds `rows[ends[i - 1]..ends[i]]`, in ascending order.
    Table { rows: Vec<u32>, ends: Vec<usize> },
    /// Each client draws `count` rows, from all of them or, by a mix of classes, from `classes`.
    Drawn { count: usize, of: usize, mix: Option<Mix> },
}

/// The rows of each class, and how much of a mix each class is.
#[derive(Clone, Debug)]
struct Mix {
    classes: Vec<Vec<u32>>,
    concentration: Vec<f64>,
}

impl Partitioner {
    /// What `kind` says.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Iid {} => "iid",
            Self::Dirichlet { .. } => "dirichlet",
            Self::EvenDirichlet { .. } => "even-dirichlet",
            Self::SizeDirichlet { .. } => "size-dirichlet",
            Self::PowerLaw { .. } => "power-law",
            Self::Shards { .. } => "shards",
            Self::Pathological { .. } => "pathological",
            Self::Similarity { .. } => "similarity",
            Self::LabelSort {} => "label-sort",
            Self::Natural { .. } => "natural",
            Self::Draw { .. } => "draw",
        }
    }

    /// Whether it goes by labels.
    fn needs_labels(&self) -> bool {
        match self {
            Self::Iid {} | Self::SizeDirichlet { .. } | Self::PowerLaw { .. } | Self::Natural { .. } => false,
            Self::Draw { alpha, .. } => alpha.is_some(),
            Self::Dirichlet { .. }
            | Self::EvenDirichlet { .. }
            | Self::Shards { .. }
            | Self::Pathological { .. }
            | Self::Similarity { .. }
            | Self::LabelSort {} => true,
        }
    }
}

impl Split {
    /// Deals the rows of `part` to `clients` under `seed`.
    pub fn new(
        part: &Part,
        partitioner: &Partitioner,
        clients: usize,
        seed: u64,
    ) -> Result<Self, PartitionError> {
        Self::of(part.labels(), part.classes(), part.owners(), part.rows(), partitioner, clients, seed)
    }

    fn of(
        labels: &[u32],
        classes: usize,
        owners: &[u32],
        rows: usize,
        partitioner: &Partitioner,
        clients: usize,
        seed: u64,
    ) -> Result<Self, PartitionError> {
        if partitioner.needs_labels() && labels.len() != rows {
            return Err(PartitionError::NoLabels { kind: partitioner.kind() });
        }
        let may_repeat = matches!(partitioner, Partitioner::Draw { .. } | Partitioner::Natural { .. });
        if clients == 0 || (clients > rows && !may_repeat) {
            return Err(PartitionError::Clients { clients, rows });
        }
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let shards = match *partitioner {
            Partitioner::Iid {} => sizes::deal(rows, &sizes::even(rows, clients), &mut rng),
            Partitioner::SizeDirichlet { alpha, min_size } => {
                let sizes = sizes::dirichlet(rows, clients, alpha, min_size, &mut rng)?;
                sizes::deal(rows, &sizes, &mut rng)
            }
            Partitioner::PowerLaw { exponent, min_size } => {
                let sizes = sizes::power_law(rows, clients, exponent, min_size, &mut rng)?;
                sizes::deal(rows, &sizes, &mut rng)
            }
            Partitioner::Dirichlet { alpha, min_size } => {
                classes::dirichlet(labels, classes, clients, alpha, min_size, &mut rng)?
            }
            Partitioner::EvenDirichlet { alpha } => {
                let shards = even::dirichlet(labels, classes, clients, alpha, seed)?;
                shards.into_iter().map(|rows| rows.into_iter().map(|row| row as u32).collect()).collect()
            }
            Partitioner::Shards { per_client } => classes::shards(labels, clients, per_client, &mut rng)?,
            Partitioner::Pathological { classes: each } => {
                classes::pathological(labels, classes, clients, each, &mut rng)?
            }
            Partitioner::Similarity { gamma } => classes::similarity(labels, clients, gamma, &mut rng)?,
            Partitioner::LabelSort {} => classes::similarity(labels, clients, 0.0, &mut rng)?,
            Partitioner::Natural { min_size } => natural(owners, clients, min_size, &mut rng)?,
            Partitioner::Draw { rows: count, alpha } => {
                if !(1..=rows).contains(&count) {
                    let expected = format!("1 to {rows}, as many as there are");
                    return Err(PartitionError::Setting { name: "rows", found: count.to_string(), expected });
                }
                let mix = alpha.map(|alpha| Mix::new(labels, classes, alpha)).transpose()?;
                return Ok(Self { clients, rows: Rows::Drawn { count, of: rows, mix }, repeats: true, seed });
            }
        };
        Ok(Self::table(shards, seed))
    }

    /// Deals the rows to all clients but those in `beside`, which is sorted; each of these holds as many rows as the
    /// others on average, drawn from all. Rows are then held by several clients.
    ///
    /// Panics where nobody is left, or a number in `beside` is none of a client.
    pub fn beside(
        part: &Part,
        partitioner: &Partitioner,
        clients: usize,
        beside: &[usize],
        seed: u64,
    ) -> Result<Self, PartitionError> {
        assert!(beside.len() < clients && beside.iter().all(|client| *client < clients), "someone is left");
        let others = Self::new(part, partitioner, clients - beside.len(), seed)?;
        let each = (part.rows() / others.clients).max(1);
        let mut rank = 0..others.clients;
        let shards = (0..clients).map(|client| match beside.binary_search(&client) {
            Ok(_) => {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                // Those of a drawn partition have the streams before.
                rng.set_stream((clients + client) as u64 + 1);
                distinct(each, part.rows(), &mut rng).into_iter().map(|row| row as u32).collect()
            }
            Err(_) => others.rows_of(rank.next().expect("there are as many as are left")).into_owned(),
        });
        Ok(Self { repeats: true, ..Self::table(shards.collect(), seed) })
    }

    fn table(shards: Vec<Vec<u32>>, seed: u64) -> Self {
        let clients = shards.len();
        let mut rows = Vec::with_capacity(shards.iter().map(Vec::len).sum());
        let mut ends = Vec::with_capacity(clients);
        for mut shard in shards {
            shard.sort_unstable();
            rows.append(&mut shard);
            ends.push(rows.len());
        }
        Self { clients, rows: Rows::Table { rows, ends }, repeats: false, seed }
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// The rows of a client, in ascending order; never empty. Panics for `client >= clients`.
    pub fn rows_of(&self, client: usize) -> Cow<'_, [u32]> {
        assert!(client < self.clients, "client {client} of {}", self.clients);
        match &self.rows {
            Rows::Table { rows, ends } => {
                let start = client.checked_sub(1).map_or(0, |before| ends[before]);
                Cow::Borrowed(&rows[start..ends[client]])
            }
            Rows::Drawn { count, of, mix } => {
                // A generator for this client alone: stream 0 is for what concerns all of them.
                let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
                rng.set_stream(client as u64 + 1);
                let mut drawn = match mix {
                    None => distinct(*count, *of, &mut rng).into_iter().map(|row| row as u32).collect(),
                    Some(mix) => mix.draw(*count, &mut rng),
                };
                drawn.sort_unstable();
                Cow::Owned(drawn)
            }
        }
    }

    /// Whether a row may be held by several clients.
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// How many rows a client holds, at least 1. Panics for `client >= clients`.
    pub fn size_of(&self, client: usize) -> usize {
        match &self.rows {
            Rows::Table { .. } => self.rows_of(client).len(),
            Rows::Drawn { count, .. } => {
                assert!(client < self.clients, "client {client} of {}", self.clients);
                *count
            }
        }
    }

    /// What a client trains on: its rows of `part`, which the split was made of, changed by `shift` if there is one.
    /// Panics for `client >= clients`.
    pub fn dataset(
        &self,
        part: &Part,
        client: usize,
        shift: Option<&Shift>,
    ) -> Result<Dataset, DatasetError> {
        self.dataset_of(part, client, None, shift)
    }

    /// The same of some of the client's rows alone, by their places among [`rows_of`](Self::rows_of); none: all.
    pub fn dataset_of(
        &self,
        part: &Part,
        client: usize,
        places: Option<&[usize]>,
        shift: Option<&Shift>,
    ) -> Result<Dataset, DatasetError> {
        let mut rows = self.rows_of(client);
        if let Some(places) = places {
            rows = places.iter().map(|&place| rows[place]).collect();
        }
        match shift.filter(|shift| **shift != Shift::default()) {
            None => part.dataset(&rows),
            Some(shift) => shift.dataset(part, &rows, client, self.clients, self.seed),
        }
    }
}

impl Mix {
    fn new(labels: &[u32], classes: usize, alpha: f64) -> Result<Self, PartitionError> {
        positive(alpha)?;
        let classes = by_class(labels, classes)?;
        let scale = alpha * classes.len() as f64 / labels.len() as f64;
        let concentration = classes.iter().map(|rows| scale * rows.len() as f64).collect();
        Ok(Self { classes, concentration })
    }

    /// `count` rows without repetition, of classes by a mix of their own.
    fn draw(&self, count: usize, rng: &mut ChaCha20Rng) -> Vec<u32> {
        let mix = class_mix(&self.concentration, rng);
        let room: Vec<usize> = self.classes.iter().map(Vec::len).collect();
        let mut counts = vec![0; room.len()];
        let mut left = count;
        // A class that is asked for more rows than it has gives what it has; the rest is asked of the others.
        while left > 0 {
            let open = |class: usize| if room[class] > counts[class] { mix[class] } else { 0.0 };
            let mut weights: Vec<f64> = (0..mix.len()).map(open).collect();
            if weights.iter().sum::<f64>() <= 0.0 {
                weights = room.iter().zip(&counts).map(|(room, count)| (room - count) as f64).collect();
            }
            for (class, more) in multinomial(left, &weights, rng).into_iter().enumerate() {
                let taken = more.min(room[class] - counts[class]);
                counts[class] += taken;
                left -= taken;
            }
        }
        let rows = |(class, count): (&Vec<u32>, usize)| {
            distinct(count, class.len(), rng).into_iter().map(|at| class[at]).collect::<Vec<_>>()
        };
        self.classes.iter().zip(counts).flat_map(rows).collect()
    }
}

/// The rows of each natural client that takes part.
fn natural(
    owners: &[u32],
    clients: usize,
    min_size: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let Some(&last) = owners.iter().max() else {
        return Err(PartitionError::NoOwners);
    };
    let mut rows = vec![Vec::new(); last as usize + 1];
    for (&owner, row) in owners.iter().zip(0..) {
        rows[owner as usize].push(row);
    }
    rows.retain(|rows: &Vec<u32>| rows.len() >= min_size.max(1));
    if clients > rows.len() {
        return Err(PartitionError::TooFewOwners { clients, natural: rows.len(), min_size: min_size.max(1) });
    }
    if clients == rows.len() {
        return Ok(rows);
    }
    let mut chosen = permutation(rows.len(), rng);
    chosen.truncate(clients);
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|at| std::mem::take(&mut rows[at])).collect())
}

/// The rows of each class, ascending.
fn by_class(labels: &[u32], classes: usize) -> Result<Vec<Vec<u32>>, PartitionError> {
    let mut rows = vec![Vec::new(); classes];
    for (row, &label) in labels.iter().enumerate() {
        let class = rows.get_mut(label as usize);
        class.ok_or(PartitionError::LabelOutOfRange { row, label, classes })?.push(row as u32);
    }
    Ok(rows)
}

fn positive(alpha: f64) -> Result<(), PartitionError> {
    if alpha > 0.0 && alpha.is_finite() { Ok(()) } else { Err(PartitionError::Alpha { found: alpha }) }
}

fn min_size() -> usize {
    1
}

#[cfg(test)]
mod tests;
