//! From a connection to an association: reading the request, answering it.

use std::net::IpAddr;

use dicom_ul::Pdu;
use dicom_ul::pdu::{AssociationRQ, MAXIMUM_PDU_SIZE, read_pdu, write_pdu};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Shared;
use super::admission::Slot;
use super::interruption::Interruption;
use super::negotiation::{self, Agreement, Titles};
use super::pdu_stream::{A_ASSOCIATE_RQ, PduStream};
use super::rejection::Rejection;

/// Longest association request we read: 128 contexts with 100 transfer syntaxes each need 400 KiB.
const MAX_REQUEST_LENGTH: u32 = 1 << 20;

/// Fixed fields before the items of an A-ASSOCIATE-RQ (PS3.8 Table 9-11).
const FIXED_FIELDS: usize = 68;

/// An association that both sides agreed to.
pub(super) struct Established {
    pub(super) titles: Titles,
    pub(super) agreement: Agreement,
    /// Counts the association until it is dropped.
    pub(super) slot: Slot,
}

/// Why there is no association.
pub(super) enum Refused {
    /// The peer went away or did not speak our language; an A-ABORT may be due.
    Interrupted(Interruption),
    /// We said no and the A-ASSOCIATE-RJ is sent.
    Rejected(Rejection, Option<Titles>),
}

impl From<Interruption> for Refused {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

/// Reads the association request and answers it. The stream's deadline is the ARTIM timer.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    peer: IpAddr,
    shared: &Shared,
) -> Result<Established, Refused> {
    let request = read_request(stream).await?;
    let (titles, slot) = match admit(&request, peer, shared) {
        Ok(admitted) => admitted,
        Err((rejection, titles)) => {
            send(stream, &Pdu::AssociationRJ(rejection.pdu())).await?;
            return Err(Refused::Rejected(rejection, titles));
        }
    };
    let agreement = negotiation::agree(request, &titles, &shared.config)?;
    send(stream, &Pdu::AssociationAC(agreement.reply.clone())).await?;
    Ok(Established {
        titles,
        agreement,
        slot,
    })
}

/// The checks of one request, in the order in which a peer can do something about them: its own
/// mistakes first, our temporary troubles last.
fn admit(
    request: &AssociationRQ,
    peer: IpAddr,
    shared: &Shared,
) -> Result<(Titles, Slot), (Rejection, Option<Titles>)> {
    let titles =
        negotiation::admit(request, &shared.config).map_err(|rejection| (rejection, None))?;
    if shared.draining.is_cancelled() || shared.spool.shedding().is_some() {
        return Err((Rejection::Congestion, Some(titles)));
    }
    match shared.admission.associate(peer, &titles.calling) {
        Ok(slot) => Ok((titles, slot)),
        Err(limit) => Err((Rejection::LocalLimit(limit), Some(titles))),
    }
}

async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
) -> Result<AssociationRQ, Interruption> {
    let (kind, length) = stream.pdu_header().await?;
    match kind {
        A_ASSOCIATE_RQ if length > MAX_REQUEST_LENGTH => {
            return Err(Interruption::PduLength { kind, length });
        }
        A_ASSOCIATE_RQ => {}
        // A peer that aborts before it began has nothing to be told.
        0x07 => return Err(Interruption::AbortedByPeer),
        0x02..=0x06 => return Err(Interruption::UnexpectedPdu(kind)),
        _ => return Err(Interruption::UnrecognizedPdu(kind)),
    }
    let body = stream
        .take(usize::try_from(length).unwrap_or(usize::MAX))
        .await?;
    parse_request(&body)
}

/// Reads an A-ASSOCIATE-RQ with dicom-ul, without the items that neither of us knows.
fn parse_request(body: &[u8]) -> Result<AssociationRQ, Interruption> {
    let pdu = known_items(body).ok_or(Interruption::Request("items do not fit the PDU"))?;
    match read_pdu(pdu.as_slice(), MAXIMUM_PDU_SIZE, false) {
        Ok(Some(Pdu::AssociationRQ(request))) => Ok(request),
        _ => Err(Interruption::Request("items cannot be read")),
    }
}

/// Builds the PDU again from its fixed fields and the three items of a request (application
/// context, presentation context, user information). Unknown items are to be ignored (PS3.8 9.3.1),
/// but dicom-ul refuses the whole PDU for one. `None`: a length runs past the end.
fn known_items(body: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut items) = body.split_at_checked(FIXED_FIELDS)?;
    let mut kept = fixed.to_vec();
    while !items.is_empty() {
        let &[kind, _, length_high, length_low] = items.first_chunk::<4>()?;
        let (item, rest) = items
            .split_at_checked(4 + usize::from(u16::from_be_bytes([length_high, length_low])))?;
        if matches!(kind, 0x10 | 0x20 | 0x50) {
            kept.extend_from_slice(item);
        }
        items = rest;
    }
    let mut pdu = vec![A_ASSOCIATE_RQ, 0];
    pdu.extend_from_slice(&u32::try_from(kept.len()).ok()?.to_be_bytes());
    pdu.append(&mut kept);
    Some(pdu)
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    pdu: &Pdu,
) -> Result<(), Interruption> {
    let mut bytes = Vec::with_capacity(1024);
    write_pdu(&mut bytes, pdu).map_err(|_| Interruption::Request("answer cannot be encoded"))?;
    stream.send(&bytes).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn item(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(u16::try_from(contents.len()).unwrap().to_be_bytes());
        bytes.extend(contents);
        bytes
    }

    fn body(items: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0];
        bytes.extend(b"CALLED          CALLING         ");
        bytes.extend([0; 32]);
        bytes.extend(items.concat());
        bytes
    }

    fn items() -> Vec<Vec<u8>> {
        let context = [
            vec![1, 0, 0, 0],
            item(0x30, b"1.2.840.10008.1.1"),
            item(0x40, b"1.2.840.10008.1.2"),
        ];
        vec![
            item(0x10, b"1.2.840.10008.3.1.1.1"),
            item(0x20, &context.concat()),
            item(0x50, &item(0x51, &[0, 0, 0x40, 0])),
        ]
    }

    #[test]
    fn items_that_nobody_knows_are_ignored() {
        let mut all = items();
        all.insert(1, item(0x99, b"from the future"));
        all[3] = item(
            0x50,
            &[item(0x77, b"?"), item(0x51, &[0, 0, 0x40, 0])].concat(),
        );
        let request = parse_request(&body(&all)).unwrap();
        assert_eq!(request.calling_ae_title, "CALLING");
        assert_eq!(request.presentation_contexts.len(), 1);
    }

    #[test]
    fn an_item_that_runs_past_the_end_is_refused() {
        let mut bytes = body(&items());
        bytes.truncate(bytes.len() - 1);
        assert!(parse_request(&bytes).is_err());
        assert!(parse_request(&bytes[..60]).is_err());
        assert!(parse_request(&body(&[item(0x20, &[1])])).is_err());
    }

    #[test]
    fn no_single_damage_to_a_request_makes_the_reader_panic() {
        let config = super::super::Config::default();
        let good = body(&items());
        let check = |bytes: &[u8]| {
            if let Ok(request) = parse_request(bytes)
                && let Ok(titles) = negotiation::admit(&request, &config)
            {
                let _ = negotiation::agree(request, &titles, &config);
            }
        };
        for at in 0..good.len() {
            check(&good[..at]);
            for value in 0..=u8::MAX {
                let mut bytes = good.clone();
                bytes[at] = value;
                check(&bytes);
            }
        }
    }
}
