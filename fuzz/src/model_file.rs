//! Model files, as the coordinator adds an update to one.

use fedveil_coordinator_core::{parameters, with_parameters};

use super::{Seeds, seed};

/// Whether the file is a model.
pub fn run(input: &[u8]) -> bool {
    let Ok(values) = parameters(input) else {
        assert!(with_parameters(input, &[]).is_err(), "one function's file is the other's");
        return false;
    };
    let same = with_parameters(input, &values).expect("as many parameters as the file has");
    assert_eq!(same, input, "the parameters of a file make the file");
    let more = [values.as_slice(), &[0.0]].concat();
    assert!(with_parameters(input, &more).is_err(), "a parameter too many");
    true
}

pub fn seeds() -> Seeds {
    let tensor = |dtype: &str, shape: &str, end: usize| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    let two = r#"{"__metadata__":{"architecture":"softmax:1x2"},
        "bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "weights":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}"#;
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    vec![
        seed("accepted-two-tensors", file(two, 16)),
        seed("accepted-no-tensor", file("{}", 0)),
        seed("accepted-no-element", file(&tensor("F32", "[0,3]", 0), 0)),
        seed("refused-other-type", file(&tensor("F16", "[4]", 8), 8)),
        seed("refused-other-length", file(&tensor("F32", "[4]", 8), 8)),
        seed("refused-bytes-after", file(two, 17)),
        seed("refused-bytes-missing", file(two, 15)),
        seed("refused-shape-overflows", file(&tensor("F32", "[4294967296,4294967296,4]", 0), 0)),
        seed("refused-overlap", file(overlapping, 12)),
        seed("refused-header-too-long", [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat()),
        seed("refused-header-cut-short", &file(two, 16)[..40]),
        seed("refused-not-json", file("\u{0}\u{1}", 0)),
        seed("refused-empty", []),
    ]
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..data).map(|byte| byte as u8));
    file
}
