//! From where, and with which certificate, somebody may come: pure decisions.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::config::Config;
use crate::dicom::AeTitle;
use crate::tls::Certificate;

/// Whether connections from this address are taken at all.
pub(super) fn takes_address(config: &Config, peer: IpAddr) -> bool {
    config.addresses.is_empty() || holds(&config.addresses, peer)
}

/// Whether a calling AE title may come from this address. Titles are compared in any case, as keys
/// from the environment arrive in lower case: a restriction must not be missed for that.
pub(super) fn takes_title_from(config: &Config, calling: &AeTitle, peer: IpAddr) -> bool {
    let rows = config.addresses_by_ae.iter();
    let mut of_title = rows.filter(|(ae, _)| ae.as_str().eq_ignore_ascii_case(calling.as_str()));
    of_title.all(|(_, blocks)| holds(blocks, peer))
}

/// Whether a calling AE title may be used with this certificate, or without any.
pub(super) fn takes_title_with(
    config: &Config,
    calling: &AeTitle,
    certificate: Option<&Certificate>,
) -> bool {
    let mut entries = config.tls.ae_titles.iter();
    match certificate {
        _ if config.tls.ae_titles.is_empty() => true,
        Some(shown) => entries.any(|(name, titles)| shown.is(name) && titles.contains(calling)),
        // A title that belongs to a certificate is nobody's without it.
        None => !entries.any(|(_, titles)| titles.contains(calling)),
    }
}

fn holds(blocks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    blocks
        .iter()
        .any(|block| canonical(*block).contains(&address))
}

/// A block of IPv4 addresses written as one of IPv6 addresses (::ffff:10.0.0.0/104) is the former.
fn canonical(block: IpNet) -> IpNet {
    let IpNet::V6(six) = block else {
        return block;
    };
    let four = six.addr().to_ipv4_mapped();
    let length = six.prefix_len().checked_sub(96);
    let four = four
        .zip(length)
        .map(|(four, length)| Ipv4Net::new(four, length));
    match four {
        Some(Ok(four)) => IpNet::V4(four),
        _ => block,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn title(text: &str) -> AeTitle {
        AeTitle::parse(text).unwrap()
    }

    #[test]
    fn an_address_is_looked_for_in_both_notations() {
        let open = config("");
        let closed = config("addresses = [\"10.0.0.0/8\", \"::ffff:192.0.2.0/120\", \"fd00::/8\"]");
        for (address, taken) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("192.0.2.77", true),
            ("192.0.3.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
            ("::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(takes_address(&closed, address), taken, "{address}");
            assert!(takes_address(&open, address));
        }
    }

    #[test]
    fn a_title_is_bound_to_its_blocks_however_it_is_written() {
        let config = config("[addresses_by_ae]\nct1 = [\"10.0.0.0/24\"]\nMR = []\n");
        for (calling, address, taken) in [
            ("CT1", "10.0.0.9", true),
            ("CT1", "10.0.1.9", false),
            ("ct1", "10.0.1.9", false),
            ("CT2", "10.0.1.9", true),
            ("MR", "10.0.0.9", false),
        ] {
            let address = address.parse().unwrap();
            let is = takes_title_from(&config, &title(calling), address);
            assert_eq!(is, taken, "{calling} from {address}");
        }
    }

    #[test]
    fn a_bound_title_needs_its_certificate_and_a_certificate_its_entry() {
        let bound = config("[tls.ae_titles]\n\"ct1.hospital\" = [\"CT1\", \"CT2\"]\n");
        let open = config("");
        let certificate = |name: &str| Certificate {
            names: vec![name.to_owned()],
            fingerprint: "ab".to_owned(),
            expires: 0,
        };
        for (name, calling, taken) in [
            (Some("CT1.hospital"), "CT1", true),
            (Some("ct1.hospital"), "CT2", true),
            (Some("ct1.hospital"), "ct1", false),
            (Some("ct1.hospital"), "MR1", false),
            (Some("mr1.hospital"), "CT1", false),
            (Some("mr1.hospital"), "MR1", false),
            (None, "CT1", false),
            (None, "MR1", true),
        ] {
            let shown = name.map(certificate);
            let calling = title(calling);
            let is = takes_title_with(&bound, &calling, shown.as_ref());
            assert_eq!(is, taken, "{name:?} as {calling}");
            assert!(takes_title_with(&open, &calling, shown.as_ref()));
        }
    }
}
