//! The platform properties of an action: what it asks for, compared with what the worker offers. A property that cannot be
//! enforced fails the action, and its message names the property.

use super::failure::Failure;
use super::proto::execution::platform::Property;

/// What an action may ask for.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Properties for the choice of a worker, such as `OSFamily`.
    pub properties: Vec<(String, String)>,
    /// Memory of an action that asks for none, and the most that one may ask for, in bytes.
    pub memory: u64,
    pub most_memory: u64,
    /// Whether an action may use the network of the host.
    pub network: bool,
    /// Whether there are cgroups, without which neither memory nor CPUs are limited.
    pub cgroup: bool,
}

/// What an action gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    pub memory: u64,
    /// CPU time per time. `None` is all CPUs of the slot.
    pub cpus: Option<f64>,
    pub network: bool,
}

impl Offer {
    /// Checks the properties of an action. `slot_cpus` is the number of CPUs of its slot.
    pub fn allow(&self, properties: &[Property], slot_cpus: usize) -> Result<Allowance, Failure> {
        let mut allowance = Allowance { memory: self.memory, cpus: None, network: false };
        for Property { name, value } in properties {
            match name.as_str() {
                "memory" => allowance.memory = self.memory(value)?,
                "cpus" => allowance.cpus = Some(self.cpus(value, slot_cpus)?),
                "network" => allowance.network = self.network(value)?,
                _ => self.check_offered(name, value)?,
            }
        }
        Ok(allowance)
    }

    fn memory(&self, value: &str) -> Result<u64, Failure> {
        let bytes = parse_bytes(value).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Failure::invalid(format!(
                "the platform property memory={value:?} is no size: use bytes, or a number with K, M or G"
            ))
        })?;
        self.require_cgroup("memory")?;
        if bytes > self.most_memory {
            let most = self.most_memory;
            return Err(Failure::precondition(format!(
                "the platform property memory={value} is more than this worker allows: {most} bytes"
            )));
        }
        Ok(bytes)
    }

    fn cpus(&self, value: &str, most: usize) -> Result<f64, Failure> {
        let cpus = value.parse().ok().filter(|cpus: &f64| cpus.is_finite() && *cpus >= 0.01).ok_or_else(|| {
            Failure::invalid(format!("the platform property cpus={value:?} is no number of CPUs: use one such as 1.5"))
        })?;
        self.require_cgroup("cpus")?;
        if cpus > most as f64 {
            return Err(Failure::precondition(format!(
                "the platform property cpus={value} is more than a slot of this worker has: {most}"
            )));
        }
        Ok(cpus)
    }

    fn network(&self, value: &str) -> Result<bool, Failure> {
        match value {
            "off" => Ok(false),
            "host" if self.network => Ok(true),
            "host" => Err(Failure::precondition(
                "the platform property network=host is not allowed: start the worker with --allow-network",
            )),
            _ => Err(Failure::invalid(format!("the platform property network={value:?} is neither off nor host"))),
        }
    }

    fn require_cgroup(&self, name: &str) -> Result<(), Failure> {
        if self.cgroup {
            return Ok(());
        }
        Err(Failure::precondition(format!(
            "the platform property {name} cannot be enforced: this worker has no cgroups"
        )))
    }

    fn check_offered(&self, name: &str, value: &str) -> Result<(), Failure> {
        let mut offered = self.properties.iter().filter(|(offered, _)| offered == name).peekable();
        if offered.peek().is_none() {
            return Err(Failure::invalid(format!(
                "the platform property {name}={value:?} is unknown to this worker: offer it with --property"
            )));
        }
        if offered.any(|(_, offered)| offered == value) {
            return Ok(());
        }
        Err(Failure::precondition(format!("the platform property {name}={value:?} is not what this worker offers")))
    }
}

/// Parses a number of bytes, with K, M or G for powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn offer() -> Offer {
        let properties = [("OSFamily", "linux"), ("pool", "a"), ("pool", "b")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Offer { properties, memory: 1 << 30, most_memory: 4 << 30, network: false, cgroup: true }
    }

    fn allow(offer: &Offer, properties: &[(&str, &str)]) -> Result<Allowance, (Code, String)> {
        let property = |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
        let properties: Vec<_> = properties.iter().map(property).collect();
        offer.allow(&properties, 2).map_err(|failure| (failure.code, failure.message))
    }

    #[test]
    fn properties_that_are_enforced_are_what_the_action_gets() {
        let allowed =
            allow(&offer(), &[("memory", "2GiB"), ("cpus", "1.5"), ("network", "off"), ("pool", "b")]).unwrap();
        assert_eq!(allowed, Allowance { memory: 2 << 30, cpus: Some(1.5), network: false });
        assert_eq!(allow(&offer(), &[]).unwrap(), Allowance { memory: 1 << 30, cpus: None, network: false });
        let open = Offer { network: true, ..offer() };
        assert!(allow(&open, &[("network", "host")]).unwrap().network);
        assert!(!allow(&open, &[]).unwrap().network);
    }

    #[test]
    fn properties_that_cannot_be_enforced_fail_by_name() {
        let without = Offer { cgroup: false, ..offer() };
        let cases = [
            (offer(), "container-image", "docker://x", Code::InvalidArgument),
            (offer(), "OSFamily", "windows", Code::FailedPrecondition),
            (offer(), "memory", "5G", Code::FailedPrecondition),
            (offer(), "memory", "much", Code::InvalidArgument),
            (offer(), "memory", "99999999999999999999G", Code::InvalidArgument),
            (offer(), "cpus", "3", Code::FailedPrecondition),
            (offer(), "cpus", "NaN", Code::InvalidArgument),
            (offer(), "network", "host", Code::FailedPrecondition),
            (offer(), "network", "maybe", Code::InvalidArgument),
            (without.clone(), "memory", "1G", Code::FailedPrecondition),
            (without, "cpus", "1", Code::FailedPrecondition),
        ];
        for (offer, name, value, code) in cases {
            let (found, message) = allow(&offer, &[(name, value)]).unwrap_err();
            assert_eq!(found, code, "{name}={value}: {message}");
            assert!(message.contains(name), "{message}");
        }
    }
}
