//! Groups and neighbours: the shuffle under the beacon, and the graph on each ring.

use super::*;
use crate::secagg::config::{ConfigError, SessionConfig, SessionParameters};
use crate::secagg::graph::Graph;
use crate::secagg::groups::form_groups;
use crate::secagg::messages::Nonce;
use crate::secagg::protocol::ProtocolKind;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    parameters: Cases<ParametersCase>,
    groups: Cases<GroupsCase>,
    graphs: Cases<GraphCase>,
}

#[derive(Deserialize)]
struct ParametersCase {
    parameters: Parameters,
    accepted: bool,
}

#[derive(Deserialize)]
struct GroupsCase {
    parameters: Parameters,
    root: Bytes<32>,
    message: Hex,
    missing: Vec<usize>,
    sizes: Vec<usize>,
    members: Option<Vec<Vec<usize>>>,
    members_digest: Bytes<32>,
    transcripts: Vec<Bytes<32>>,
}

#[derive(Deserialize)]
struct Parameters {
    context: Bytes<32>,
    authority: Bytes<32>,
    protocol: String,
    prg: String,
    ring_bits: u32,
    length: usize,
    group_size: usize,
    degree: usize,
    threshold: usize,
    min_survivors: usize,
    min_cohort: usize,
    max_cohort: usize,
    max_missing_reveals: usize,
}

impl Parameters {
    fn config(&self) -> Result<SessionConfig, ConfigError> {
        let parameters = SessionParameters {
            context: self.context.0,
            authority: self.authority.0,
            protocol: self.protocol.parse::<ProtocolKind>().unwrap(),
            prg: cipher(&self.prg),
            ring_bits: self.ring_bits,
            length: self.length,
            group_size: self.group_size,
            degree: self.degree,
            threshold: self.threshold,
            min_survivors: self.min_survivors,
            min_cohort: self.min_cohort,
            max_cohort: self.max_cohort,
            max_missing_reveals: self.max_missing_reveals,
        };
        SessionConfig::new(parameters)
    }
}

#[derive(Deserialize)]
struct GraphCase {
    size: usize,
    degree: usize,
    first: Vec<usize>,
    last: Vec<usize>,
    digest: Bytes<32>,
}

fn vectors() -> Vectors {
    vectors!("graph.json")
}

#[test]
fn parameters_with_and_without_a_graph() {
    for case in vectors().parameters.0 {
        let (parameters, found) = (&case.parameters, case.parameters.config());
        let numbers = (parameters.degree, parameters.threshold, parameters.min_survivors);
        assert_eq!(found.is_ok(), case.accepted, "degree, threshold, survivors {numbers:?}: {found:?}");
    }
}

#[test]
fn groups_in_ring_order_from_the_beacon() {
    for case in vectors().groups.0 {
        let (config, cohort) = (case.parameters.config().unwrap(), case.parameters.max_cohort);
        let revealed = (0..cohort).filter(|index| !case.missing.contains(index));
        let reveals: Vec<(usize, Nonce)> = revealed.map(|index| (index, Nonce([0; 32]))).collect();
        let groups = form_groups(&config, &case.root.0, &case.message.0, &reveals);
        let members: Vec<Vec<usize>> = groups.iter().map(|group| group.members().to_vec()).collect();
        assert_eq!(members.iter().map(Vec::len).collect::<Vec<_>>(), case.sizes);
        assert_eq!(elements_digest(members.iter().flatten().map(|&index| index as u32)), case.members_digest);
        assert!(case.members.is_none_or(|wanted| wanted == members), "{cohort} clients");
        let transcripts: Vec<_> = groups.iter().map(|group| Bytes(*group.transcript())).collect();
        assert_eq!(transcripts, case.transcripts, "{cohort} clients");
    }
}

#[test]
fn neighbours_on_the_ring() {
    for case in vectors().graphs.0 {
        let graph = Graph::new(case.size, case.degree);
        assert_eq!(graph.neighbours(0), case.first);
        assert_eq!(graph.neighbours(case.size - 1), case.last);
        let all = (0..case.size).flat_map(|position| graph.neighbours(position));
        assert_eq!(elements_digest(all.map(|other| other as u32)), case.digest, "{} members", case.size);
    }
}
