//! The two things we need to know of a certificate that rustls does not tell: how it was signed, and whose it is.
//!
//! A certificate is read only as far as that needs. Both of ours come from files or have been verified by the handshake;
//! still, every length is checked, and what is not understood is `None`.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// `id-at-commonName`
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What is left of a DER encoding.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its contents.
    fn next(&mut self) -> Option<(u8, Der<'a>)> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => rest
                .split_first()
                .map(|(&a, rest)| (usize::from(a), rest))?,
            0x82 => {
                let (word, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*word)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, Der(contents)))
    }

    /// The contents of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, contents) = self.next()?;
        (found == tag).then_some(contents)
    }
}

/// Channel binding data of type `tls-server-end-point` (RFC 5929): the certificate's hash by the algorithm it was signed
/// with, or SHA-256 in place of MD5 and SHA-1. `None` for kinds of signatures the RFC does not define it for.
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let mut outer = Der(certificate).expect(SEQUENCE)?;
    outer.expect(SEQUENCE)?;
    let algorithm = outer.expect(SEQUENCE)?.expect(OID)?;
    Some(match algorithm.0 {
        // RSA (PKCS #1 v1.5) with MD5, SHA-1, SHA-256, then ECDSA with SHA-1, SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => Sha256::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => Sha384::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// The public key (SubjectPublicKeyInfo) of a certificate of version 1, as `openssl x509 -req` makes them, and PostgreSQL's manual with it. They have
/// no extensions, and rustls does not read them. `None` of any other.
pub(crate) fn key_of_version_1(certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = Der(certificate).expect(SEQUENCE)?.expect(SEQUENCE)?;
    let mut ahead = fields;
    if ahead.next()?.0 == VERSION {
        return None;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        fields.next()?;
    }
    let from_here = fields.0;
    fields.expect(SEQUENCE)?;
    from_here.get(..from_here.len() - fields.0.len())
}

/// The subject's first common name. `None` if there is none, or it is not text, or holds a NUL.
pub(crate) fn common_name(certificate: &[u8]) -> Option<&str> {
    let mut fields = Der(certificate).expect(SEQUENCE)?.expect(SEQUENCE)?;
    let mut ahead = fields;
    if ahead.next()?.0 == VERSION {
        fields = ahead;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields.next()?;
    }
    let mut subject = fields.expect(SEQUENCE)?;
    while !subject.0.is_empty() {
        let mut names = subject.expect(SET)?;
        while !names.0.is_empty() {
            let mut name = names.expect(SEQUENCE)?;
            if name.expect(OID)?.0 != COMMON_NAME {
                continue;
            }
            let (tag, value) = name.next()?;
            let text = std::str::from_utf8(value.0).ok()?;
            return (TEXTS.contains(&tag) && !text.contains('\0')).then_some(text);
        }
    }
    None
}
