//! From a connection to an association: reading the request, answering it.

use bytes::Buf;
use dicom_ul::Pdu;
use dicom_ul::pdu::{AssociationRQ, MAXIMUM_PDU_SIZE, read_pdu, write_pdu};
use tokio::io::{AsyncRead, AsyncWrite};

use super::admission::Slot;
use super::connection::Connection;
use super::interruption::Interruption;
use super::items::items;
use super::negotiation::{self, Agreement, Titles};
use super::pdu_stream::{A_ABORT, A_ASSOCIATE_RQ, PduStream};
use super::rejection::Rejection;
use super::user_information::UserInformation;
use super::{Shared, access};

/// Fixed fields before the items of an A-ASSOCIATE-RQ (PS3.8 Table 9-11).
const FIXED_FIELDS: usize = 68;

/// Presentation context ID and reserved bytes before the sub-items of a presentation context (PS3.8
/// Table 9-13).
const CONTEXT_FIELDS: usize = 4;

/// Presentation contexts of one association: the odd numbers of a byte.
const MAX_CONTEXTS: usize = 128;

/// Transfer syntaxes of one context: several times as many as there are.
const MAX_TRANSFER_SYNTAXES: usize = 256;

/// Item and sub-item types (PS3.8 9.3.2).
const APPLICATION_CONTEXT: u8 = 0x10;
const PRESENTATION_CONTEXT: u8 = 0x20;
const ABSTRACT_SYNTAX: u8 = 0x30;
const TRANSFER_SYNTAX: u8 = 0x40;
const USER_INFORMATION: u8 = 0x50;

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
    connection: &Connection,
    shared: &Shared,
) -> Result<Established, Refused> {
    let config = &*connection.config;
    let (request, user) = read_request(stream).await?;
    let (titles, slot) = match admit(&request, connection, shared) {
        Ok(admitted) => admitted,
        Err((rejection, titles)) => {
            send(stream, &Pdu::AssociationRJ(rejection.pdu())).await?;
            return Err(Refused::Rejected(rejection, titles));
        }
    };
    let commitment = shared.services.commitments.is_some();
    let agreement = negotiation::agree(&request, &user, &titles, config, commitment)?;
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
    connection: &Connection,
    shared: &Shared,
) -> Result<(Titles, Slot), (Rejection, Option<Titles>)> {
    let (peer, config) = (connection.peer, &*connection.config);
    let titles = negotiation::admit(request, config).map_err(|rejection| (rejection, None))?;
    if !access::takes_title_from(config, &titles.calling, peer) {
        return Err((Rejection::Address, Some(titles)));
    }
    let certificate = connection.certificate.as_ref();
    if !access::takes_title_with(config, &titles.calling, certificate) {
        return Err((Rejection::Certificate, Some(titles)));
    }
    let paused = shared.services.pause.is_paused();
    if paused || shared.draining.is_cancelled() || shared.spool.shedding().is_some() {
        return Err((Rejection::Congestion, Some(titles)));
    }
    match shared.admission.associate(peer, &titles.calling) {
        Ok(slot) => Ok((titles, slot)),
        Err(limit) => Err((Rejection::LocalLimit(limit), Some(titles))),
    }
}

async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
) -> Result<(AssociationRQ, UserInformation), Interruption> {
    match stream.pdu_header().await? {
        A_ASSOCIATE_RQ => parse_request(&stream.contents().await?),
        // A peer that aborts before it began has nothing to be told.
        A_ABORT => Err(Interruption::AbortedByPeer),
        kind => Err(Interruption::UnexpectedPdu(kind)),
    }
}

/// Reads an A-ASSOCIATE-RQ: its user information by ourselves, the rest with dicom-ul, which gets
/// the items that both of us know. Unknown ones are to be ignored (PS3.8 9.3.1), but dicom-ul refuses
/// the whole PDU for one.
fn parse_request(body: &[u8]) -> Result<(AssociationRQ, UserInformation), Interruption> {
    let (fixed, rest) = body
        .split_at_checked(FIXED_FIELDS)
        .ok_or(Interruption::Request("fixed fields are missing"))?;
    let mut kept = fixed.to_vec();
    let mut user = UserInformation::default();
    let mut contexts = 0;
    for item in items(rest) {
        let item = item.ok_or(Interruption::Request("items do not fit the PDU"))?;
        match item.kind {
            APPLICATION_CONTEXT => kept.extend_from_slice(item.whole),
            PRESENTATION_CONTEXT if contexts == MAX_CONTEXTS => {
                return Err(Interruption::Request("more contexts than there are IDs"));
            }
            PRESENTATION_CONTEXT => {
                contexts += 1;
                keep_context(&mut kept, item.contents)?;
            }
            USER_INFORMATION => user.read(item.contents)?,
            _ => {}
        }
    }
    let length = u32::try_from(kept.len()).unwrap_or(u32::MAX);
    let header = [&[A_ASSOCIATE_RQ, 0][..], &length.to_be_bytes()].concat();
    match read_pdu(header.chain(kept.as_slice()), MAXIMUM_PDU_SIZE, false) {
        Ok(Some(Pdu::AssociationRQ(request))) => Ok((request, user)),
        _ => Err(Interruption::Request("items cannot be read")),
    }
}

/// Appends a presentation context item with the sub-items that are known: one abstract syntax and
/// the transfer syntaxes.
fn keep_context(kept: &mut Vec<u8>, contents: &[u8]) -> Result<(), Interruption> {
    let (id, rest) = contents
        .split_at_checked(CONTEXT_FIELDS)
        .ok_or(Interruption::Request("presentation context is too short"))?;
    let start = kept.len();
    kept.extend_from_slice(&[PRESENTATION_CONTEXT, 0, 0, 0]);
    kept.extend_from_slice(id);
    let (mut abstract_syntaxes, mut transfer_syntaxes) = (0, 0);
    for item in items(rest) {
        let item = item.ok_or(Interruption::Request("sub-items do not fit their item"))?;
        match item.kind {
            ABSTRACT_SYNTAX => abstract_syntaxes += 1,
            TRANSFER_SYNTAX => transfer_syntaxes += 1,
            _ => continue,
        }
        kept.extend_from_slice(item.whole);
    }
    if abstract_syntaxes != 1 || transfer_syntaxes > MAX_TRANSFER_SYNTAXES {
        return Err(Interruption::Request(
            "not one abstract syntax, or too many transfer syntaxes",
        ));
    }
    let length = u16::try_from(kept.len() - start - 4).unwrap_or(u16::MAX);
    if let Some(field) = kept.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
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
        let (request, _) = parse_request(&body(&all)).unwrap();
        assert_eq!(request.calling_ae_title, "CALLING");
        assert_eq!(request.presentation_contexts.len(), 1);
    }

    fn context(id: u8, sub_items: &[Vec<u8>]) -> Vec<u8> {
        item(0x20, &[&[id, 0, 0, 0][..], &sub_items.concat()].concat())
    }

    #[test]
    fn sub_items_that_nobody_knows_are_ignored_in_contexts_too() {
        let class = item(0x30, b"1.2.840.10008.1.1");
        let syntax = item(0x40, b"1.2.840.10008.1.2");
        let mut all = items();
        let unknown = item(0x41, b"from the future");
        all[1] = context(
            5,
            &[unknown.clone(), class.clone(), unknown, syntax.clone()],
        );
        let (request, _) = parse_request(&body(&all)).unwrap();
        let proposed = &request.presentation_contexts[0];
        assert_eq!((proposed.id, proposed.transfer_syntaxes.len()), (5, 1));
        for sub_items in [&[syntax.clone()][..], &[class.clone(), class, syntax]] {
            all[1] = context(5, sub_items);
            assert!(parse_request(&body(&all)).is_err());
        }
    }

    #[test]
    fn as_many_contexts_and_transfer_syntaxes_as_there_can_be_and_no_more() {
        let class = item(0x30, b"1.2.840.10008.1.1");
        let syntax = item(0x40, b"1.2.840.10008.1.2");
        let many = |contexts: usize, syntaxes: usize| {
            let mut sub_items = vec![class.clone()];
            sub_items.resize(1 + syntaxes, syntax.clone());
            let mut all = items();
            all.splice(1..2, vec![context(1, &sub_items); contexts]);
            parse_request(&body(&all)).map(|(request, _)| request.presentation_contexts.len())
        };
        assert_eq!(many(128, 1).unwrap(), 128);
        assert!(many(129, 1).is_err());
        assert_eq!(many(1, 256).unwrap(), 1);
        assert!(many(1, 257).is_err());
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
            if let Ok((request, user)) = parse_request(bytes)
                && let Ok(titles) = negotiation::admit(&request, &config)
            {
                let _ = negotiation::agree(&request, &user, &titles, &config, true);
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
