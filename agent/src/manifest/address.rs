//! Addresses and blocks of addresses, read so that no two tools can take them for different ones.

use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostics::quote;

/// An address. No leading zeros, no zone, and no IPv4 address in IPv6 form, which would belong to both
/// families.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(format!("{} is an IPv4 address in IPv6 form; write it as an IPv4 address", quote(text)))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("{} is not an IP address", quote(text))),
    }
}

/// A block `address/length`; host bits are cleared.
pub(crate) fn block(text: &str) -> Result<IpNet, String> {
    let Some((network, length)) = text.split_once('/') else {
        let why = if address(text).is_ok() { ": the prefix length is missing" } else { "" };
        return Err(format!("{} is not a CIDR block{why}", quote(text)));
    };
    let network =
        address(network).map_err(|error| format!("{} is not a CIDR block: {error}", quote(text)))?;
    // A sign or a leading zero would pass the integer parser.
    let plain = length.bytes().all(|c| c.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length = length.parse().ok().filter(|_| plain);
    length
        .and_then(|length| IpNet::new(network, length).ok())
        .map(|block| block.trunc())
        .ok_or_else(|| format!("{} is not a CIDR block: bad prefix length", quote(text)))
}

/// Why the address cannot be that of an endpoint or an external address of a service, if so.
pub(crate) fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    };
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if link_local {
        Some("is a link-local address")
    } else if link_local_multicast {
        Some("is a link-local multicast address")
    } else {
        None
    }
}

/// The word Kubernetes uses for the address family.
pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_reading() {
        for good in ["10.0.0.1", "fd00::1", "::"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0", "010.0.0.1", "10.0.0.256", "fe80::1%eth0", "::ffff:10.0.0.1", " 10.0.0.1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_need_a_length_and_lose_their_host_bits() {
        assert_eq!(block("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(block("0.0.0.0/0").unwrap().to_string(), "0.0.0.0/0");
        for bad in
            ["10.0.0.1", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/", "fd00::/129", "/8", "a/8"]
        {
            assert!(block(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn special_addresses_are_told_apart() {
        for bad in ["0.0.0.0", "::", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1"] {
            assert!(special(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in ["10.0.0.1", "fd00::1", "203.0.113.1"] {
            assert!(special(good.parse().unwrap()).is_none(), "{good}");
        }
    }
}
