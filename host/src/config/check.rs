//! What only shows once all settings are known: values that do not fit beside each other.

use super::file::Contents;
use super::{Config, ConfigError};

/// Refuses the first pair of settings that cannot go together, naming the one that somebody set.
pub(super) fn check(config: &Config, file: &Contents) -> Result<(), ConfigError> {
    quorums(config)?;
    services(config, file)?;
    addresses(config)?;
    let limits = &config.limits;
    if limits.reply_bytes_max <= limits.value_bytes_max {
        return Err(clash(
            config,
            &["limits.reply_bytes_max", "limits.value_bytes_max"],
            "a reply must have room for one value and a little more; raise limits.reply_bytes_max",
        ));
    }
    if limits.key_bytes_max > limits.value_bytes_max {
        return Err(clash(
            config,
            &["limits.key_bytes_max", "limits.value_bytes_max"],
            "keys may not be longer than values; lower limits.key_bytes_max",
        ));
    }
    Ok(())
}

fn quorums(config: &Config) -> Result<(), ConfigError> {
    let replication = config.replication;
    for (key, value) in [("r", replication.r), ("w", replication.w)] {
        if value > replication.n {
            let why = format!(
                "{key}={value} waits for more replicas than there are (n={})",
                replication.n
            );
            return Err(clash(config, &[key, "n"], &why));
        }
    }
    Ok(())
}

fn services(config: &Config, file: &Contents) -> Result<(), ConfigError> {
    for (service, settings) in &config.services {
        let quorum = settings.quorum;
        let n = quorum.n.unwrap_or(config.replication.n);
        let refuse = |name: &str, why: String| {
            let key = format!("service.{service}.{name}");
            let origin = file.origin(&key);
            Err(ConfigError::Value { key, why, origin })
        };
        // A number that is inherited gives way to a smaller n; one that is written beside it may not contradict it.
        let mut demands = settings.demands;
        let demands = demands.named().map(|(name, value)| (name, Some(*value)));
        let numbers = [("r", quorum.r), ("w", quorum.w)];
        for (name, value) in numbers.into_iter().chain(demands) {
            if let Some(value) = value.filter(|value| *value > n) {
                return refuse(
                    name,
                    format!("{name}={value} waits for more replicas than there are (n={n})"),
                );
            }
        }
        let most = config.limits.request_timeout;
        if settings.request_timeout.is_some_and(|own| own > most) {
            let most = humantime::format_duration(most);
            let why =
                format!("a service may not have more time than limits.request_timeout={most}");
            return refuse("request_timeout", why);
        }
    }
    Ok(())
}

fn addresses(config: &Config) -> Result<(), ConfigError> {
    let all = [
        ("resp", config.resp),
        ("http", config.http),
        ("peer", config.peer),
    ];
    for (at, (key, address)) in all.iter().enumerate() {
        for (other, same) in all.iter().take(at) {
            if address == same && address.port() != 0 {
                let why = format!("{key} and {other} are both {address}; each needs its own");
                return Err(clash(config, &[key, other], &why));
            }
        }
    }
    Ok(())
}

/// The error for several keys, on the first that is not a default.
fn clash(config: &Config, keys: &[&str], why: &str) -> ConfigError {
    let set = |key: &&&str| config.origin(key) != super::Origin::Default;
    let key = keys
        .iter()
        .find(set)
        .or(keys.first())
        .copied()
        .unwrap_or_default();
    ConfigError::Value {
        key: key.into(),
        why: why.into(),
        origin: config.origin(key),
    }
}
