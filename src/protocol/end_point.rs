//! The channel binding `tls-server-end-point` of RFC 5929: which hash of the server's certificate SCRAM is bound to.
//!
//! Called by everything that logs in to a server over TLS. It reads just enough DER to find the signature's algorithm; a
//! certificate that it cannot read has no binding, never a wrong one. It verifies nothing: the TLS layer does.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// The certificate hashed as its own signature hashes; SHA-256 for MD5 and SHA-1; `None` where no hash is defined (Ed25519).
pub fn hash_of(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    let (body, _) = element(certificate)?;
    let (_, after_signed_part) = element(body)?;
    let (algorithm, _) = element(after_signed_part)?;
    let (oid, _) = element(algorithm)?;
    let (family, last) = oid.split_at_checked(oid.len().checked_sub(1)?)?;
    match (family, last) {
        (RSA, [4 | 5 | 11]) | (ECDSA_SHA2, [2]) => Some(Sha256::digest(certificate).to_vec()),
        (RSA, [12]) | (ECDSA_SHA2, [3]) => Some(Sha384::digest(certificate).to_vec()),
        (RSA, [13]) | (ECDSA_SHA2, [4]) => Some(Sha512::digest(certificate).to_vec()),
        _ if oid == ECDSA_SHA1 => Some(Sha256::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The contents of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_tag, first], rest) = der.split_first_chunk::<2>()?;
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    if length.len() > 3 {
        return None;
    }
    let length = length
        .iter()
        .fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).expect("parameters");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_certificate_is_hashed_as_its_signature_hashes() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash_of(&p256), Some(Sha256::digest(&p256).to_vec()));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash_of(&p384), Some(Sha384::digest(&p384).to_vec()));
        assert_eq!(hash_of(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(hash_of(&p256[..20]), None);
        assert_eq!(hash_of(&[]), None);
    }
}
