//! A section of a scenario on one line: `dirichlet,alpha=0.5` for `{ kind = "dirichlet", alpha = 0.5 }`.

use serde::de::DeserializeOwned;

/// Reads a kind and its settings. A value is what TOML makes of it, and a text where TOML makes nothing of it.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut parts = text.split(',');
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), parts.next().unwrap_or_default().into());
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("found {part:?}, accepted is KEY=VALUE, as in alpha=0.5"))?;
        let value = value.parse::<toml::Value>().unwrap_or_else(|_| value.into());
        if table.insert(key.to_owned(), value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    // What TOML appends about the place would be about a text that nobody wrote.
    table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_simulations::datasets::DataSpec;
    use fedveil_simulations::partition::Partitioner;

    #[test]
    fn kinds_come_with_their_settings() {
        assert_eq!(parse("iid"), Ok(Partitioner::Iid {}));
        assert_eq!(parse("dirichlet,alpha=1"), Ok(Partitioner::Dirichlet { alpha: 1.0, min_size: 1 }));
        assert_eq!(parse("draw,rows=20,alpha=0.5"), Ok(Partitioner::Draw { rows: 20, alpha: Some(0.5) }));
        assert_eq!(parse("leaf,folder=a/b c"), Ok(DataSpec::Leaf { folder: "a/b c".to_owned() }));
        assert!(matches!(
            parse::<DataSpec>("csv,path=x.csv,header=false,label=2"),
            Err(error) if error.contains("invalid type: integer `2`")
        ));
        assert!(matches!(
            parse("csv,path=x.csv,header=false,label='2'"),
            Ok(DataSpec::Csv { header: false, label: Some(label), .. }) if label == "2"
        ));
    }

    #[test]
    fn mistakes_are_named() {
        let refusal = |text| parse::<Partitioner>(text).unwrap_err();
        assert!(refusal("dirichlet").contains("missing field `alpha`"));
        assert!(refusal("dirichlet,beta=1").contains("unknown field `beta`"));
        assert!(refusal("dirichlet,alpha").contains("found \"alpha\", accepted is KEY=VALUE"));
        assert!(refusal("dirichlet,alpha=a").contains("invalid type: string \"a\""));
        assert_eq!(refusal("dirichlet,alpha=1,alpha=2"), "alpha is given twice");
        assert!(refusal("dirichelt").contains("unknown variant `dirichelt`"));
    }
}
