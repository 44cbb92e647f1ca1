//! Rules, choices, roles and groups on data sets made in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::dicom::dataset::ReadLimits;
use crate::model::manifest::{AppliesTo, Rule};

/// Elements in explicit VR little endian, in the order in which they are put.
#[derive(Default, Clone)]
struct Elements(Vec<u8>);

impl Elements {
    fn put(mut self, (group, element): (u16, u16), vr: &[u8; 2], value: &[u8]) -> Self {
        self.0.extend(group.to_le_bytes());
        self.0.extend(element.to_le_bytes());
        self.0.extend(vr);
        let length = value.len().next_multiple_of(2);
        if matches!(vr, b"SQ" | b"OW") {
            self.0.extend([0, 0]);
            self.0.extend((length as u32).to_le_bytes());
        } else {
            self.0.extend((length as u16).to_le_bytes());
        }
        self.0.extend(value);
        let padding = value.len() % 2;
        self.0.extend(&[b' '][..padding]);
        self
    }

    fn text(self, tag: (u16, u16), vr: &[u8; 2], value: &str) -> Self {
        self.put(tag, vr, value.as_bytes())
    }

    fn sequence(self, tag: (u16, u16), items: &[Elements]) -> Self {
        let mut value = Vec::new();
        for item in items {
            value.extend([0xFE, 0xFF, 0x00, 0xE0]);
            value.extend((item.0.len() as u32).to_le_bytes());
            value.extend(&item.0);
        }
        self.put(tag, b"SQ", &value)
    }

    fn file(&self) -> DicomFile {
        let meta = Elements(vec![0; 128]);
        let mut bytes = meta.0;
        bytes.extend(b"DICM");
        bytes.extend(
            Elements::default()
                .text((2, 0x10), b"UI", "1.2.840.10008.1.2.1")
                .0,
        );
        bytes.extend(&self.0);
        DicomFile::from_bytes(bytes, &ReadLimits::default()).unwrap()
    }
}

/// A chest film of a man of 45 with every kind of value.
fn film() -> Elements {
    Elements::default()
        .text((0x0008, 0x0008), b"CS", "ORIGINAL\\PRIMARY\\AXIAL")
        .text((0x0008, 0x0020), b"DA", "20260102")
        .text((0x0008, 0x0060), b"CS", "DX")
        .text((0x0008, 0x0070), b"LO", "Acme Imaging ")
        .text((0x0008, 0x103E), b"LO", "Chest PA erect")
        .sequence(
            (0x0008, 0x2218),
            &[
                Elements::default().text((0x0008, 0x0100), b"SH", "51185008"),
                Elements::default().text((0x0008, 0x0100), b"SH", "302551006"),
            ],
        )
        .text((0x0010, 0x0020), b"LO", "SECRET-7")
        .text((0x0010, 0x1010), b"AS", "045Y")
        .text((0x0018, 0x0050), b"DS", "8")
        .text((0x0018, 0x1164), b"DS", "0.2\\0.1")
        .text((0x0018, 0x5101), b"CS", "PA")
        .put((0x0028, 0x0010), b"US", &2000u16.to_le_bytes())
        .put((0x0028, 0x0011), b"US", &1000u16.to_le_bytes())
        .text((0x0028, 0x2110), b"CS", "01")
        .put((0x7FE0, 0x0010), b"OW", &[0; 8])
}

fn rule(toml: &str) -> Rule {
    let rule: Rule = toml::from_str(toml).unwrap_or_else(|err| panic!("{toml}: {err}"));
    rule.validate("where").unwrap();
    rule
}

#[track_caller]
fn holds(file: &DicomFile, toml: &str) -> bool {
    let known = Known {
        calling_ae: "CT1".to_owned(),
        ..Known::of_file(file)
    };
    rule(toml).holds(&Instance {
        known: &known,
        data_set: file.data_set(),
    })
}

#[test]
fn each_test_can_hold_and_not_hold() {
    let film = film().file();
    for (toml, expected) in [
        ("attribute = 'Manufacturer'\nequals = ' acme imaging'", true),
        ("attribute = 'Manufacturer'\nequals = 'acme'", false),
        ("attribute = 'SliceThickness'\nequals = 8.0", true),
        ("attribute = 'SliceThickness'\nequals = 8", true),
        ("attribute = 'SliceThickness'\nequals = 9", false),
        ("attribute = 'Rows'\nany_of = [512, 2000]", true),
        ("attribute = 'ImageType'\nequals = 'axial'", true),
        (
            "attribute = 'ImageType'\nequals = 'AXIAL'\nnot = true",
            false,
        ),
        (
            "attribute = 'ImageType'\nany_of = ['LOCALIZER']\nnot = true",
            true,
        ),
        (
            "attribute = 'SeriesDescription'\nmatches = 'pa.*ERECT'",
            true,
        ),
        ("attribute = 'SeriesDescription'\nmatches = '^pa'", false),
        (
            "attribute = 'SeriesDescription'\nmatches = '(?-i)chest'",
            false,
        ),
        ("attribute = 'SliceThickness'\nrange = [0.5, 8]", true),
        ("attribute = 'SliceThickness'\nrange = [0.5, 7.9]", false),
        ("attribute = 'ImagerPixelSpacing'\nrange = [0.1, 0.2]", true),
        (
            "attribute = 'ImagerPixelSpacing'\nrange = [0.15, 0.2]",
            false,
        ),
        ("attribute = 'Manufacturer'\nrange = [0, 9]", false),
        ("attribute = 'BodyPartExamined'\npresent = true", false),
        ("attribute = 'BodyPartExamined'\npresent = false", true),
        ("attribute = 'BodyPartExamined'\nequals = 'CHEST'", false),
        (
            "attribute = 'BodyPartExamined'\nequals = 'CHEST'\nnot = true",
            true,
        ),
        (
            "attribute = 'AnatomicRegionSequence.CodeValue'\nequals = '302551006'",
            true,
        ),
        (
            "attribute = 'AnatomicRegionSequence.CodeValue'\nequals = '1'",
            false,
        ),
        ("attribute = 'AnatomicRegionSequence'\npresent = true", true),
        // All tests of one rule.
        (
            "attribute = 'SliceThickness'\nequals = 8\nrange = [0, 1]",
            false,
        ),
    ] {
        assert_eq!(holds(&film, toml), expected, "{toml}");
    }
}

#[test]
fn derived_names_compute_what_the_manual_says() {
    let film = film().file();
    for toml in [
        "attribute = 'age_years'\nequals = 45",
        "attribute = 'lossy'\nequals = true",
        "attribute = 'transfer_syntax'\nequals = '1.2.840.10008.1.2.1'",
        "attribute = 'rows'\nequals = 2000",
        "attribute = 'columns'\nequals = 1000",
        "attribute = 'matrix'\nequals = 1000",
        "attribute = 'field_of_view_mm'\nrange = [399.999, 400.001]",
        "attribute = 'pixel_spacing_mm'\nequals = 0.2",
        "attribute = 'slice_thickness_mm'\nequals = 8",
        "attribute = 'frames'\nequals = 1",
        "attribute = 'calling_ae'\nequals = 'CT1'",
        "attribute = 'called_ae'\npresent = false",
    ] {
        assert!(holds(&film, toml), "{toml}");
    }
    let ages = |born: &str, at: &str| {
        let file = Elements::default()
            .text((0x0008, 0x0020), b"DA", at)
            .text((0x0010, 0x0030), b"DA", born)
            .file();
        let known = Known::of_file(&file);
        let age = Attribute::try_from("age_years".to_owned()).unwrap();
        let instance = Instance {
            known: &known,
            data_set: file.data_set(),
        };
        age.values(&instance).first().and_then(|held| held.number)
    };
    assert_eq!(ages("20000301", "20180301"), Some(18.0));
    assert_eq!(ages("20000302", "20180301"), Some(17.0 + 11.0 / 12.0));
    assert_eq!(ages("20260102", "20180301"), None);
    assert_eq!(ages("2000", "20180301"), None);
}

#[test]
fn a_stream_that_may_be_lossless_is_believed_to_be_when_the_attribute_says_so() {
    let lossy = |stated: &str, syntax: &str| {
        let file = Elements::default()
            .text((0x0028, 0x2110), b"CS", stated)
            .file();
        let known = Known {
            transfer_syntax: format!("1.2.840.10008.1.2.4.{syntax}"),
            ..Known::default()
        };
        rule("attribute = 'lossy'\nequals = true").holds(&Instance {
            known: &known,
            data_set: file.data_set(),
        })
    };
    for (stated, syntax, expected) in [
        ("", "90", false),
        ("01", "90", true),
        ("", "91", true),
        ("00", "91", false),
        // Baseline JPEG is never lossless, whatever is said.
        ("00", "50", true),
    ] {
        assert_eq!(lossy(stated, syntax), expected, "{stated} {syntax}");
    }
}

#[test]
fn a_path_leads_into_functional_groups_shared_before_the_first_frame() {
    let measures = |thickness: &str| {
        let measures = Elements::default()
            .text((0x0018, 0x0050), b"DS", thickness)
            .text((0x0028, 0x0030), b"DS", "0.5\\0.25");
        Elements::default().sequence((0x0028, 0x9110), &[measures])
    };
    let of = |shared: Option<&str>| {
        let mut file = Elements::default()
            .put((0x0028, 0x0010), b"US", &100u16.to_le_bytes())
            .put((0x0028, 0x0011), b"US", &300u16.to_le_bytes());
        if let Some(shared) = shared {
            file = file.sequence((0x5200, 0x9229), &[measures(shared)]);
        }
        file.sequence((0x5200, 0x9230), &[measures("2"), measures("3")])
            .file()
    };
    let is = |file: &DicomFile, thickness: f64| {
        let name = "PixelMeasuresSequence.SliceThickness";
        holds(file, &format!("attribute = '{name}'\nequals = {thickness}"))
            && holds(
                file,
                &format!("attribute = 'slice_thickness_mm'\nequals = {thickness}"),
            )
    };
    assert!(is(&of(Some("1")), 1.0));
    assert!(is(&of(None), 2.0));
    assert!(holds(
        &of(None),
        "attribute = 'field_of_view_mm'\nequals = 75"
    ));
    assert!(holds(
        &of(None),
        "attribute = 'SliceThickness'\npresent = false"
    ));
}

const MANIFEST: &str = r#"
    name = "example"
    version = "1"
    sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    title = "Example"
    intended_use = "Tests"
    licence = "MIT"
    device_uid = "2.25.1"
    [applies_to]
    level = "instance"
    modality = ["DX"]
    view = ["pa"]
    #applies
    #[[applies_to.where]]
    [[input]]
    name = "image"
    layout = "NCHW"
    dtype = "float32"
    rows = 8
    columns = 8
    channels = 1
    value = "voi"
    fit = "stretch"
    interpolation = "bilinear-antialias"
    #input
    [output]
    kind = "classification"
    tensor = "logits"
    activation = "sigmoid"
    aggregate = "max"
    [[output.labels]]
    index = 0
    label = "opacity"
    code = { scheme = "SCT", value = "1", meaning = "Opacity" }
    threshold = 0.5
    priority = "urgent"
    #end
"#;

fn parse(changes: &[(&str, &str)]) -> Result<Manifest, String> {
    let mut text = MANIFEST.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    Manifest::parse(&text)
}

#[test]
fn a_condition_that_cannot_be_meant_is_refused_with_its_key() {
    for (rule, words) in [
        (
            "attribute = 'SliceThikness'\npresent = true",
            ["`SliceThikness`", "attribute"],
        ),
        (
            "attribute = 'slice'\npresent = true",
            ["`slice`", "age_years"],
        ),
        (
            "attribute = 'Rows.Columns'\npresent = true",
            ["`Rows`", "no sequence"],
        ),
        (
            "attribute = 'Rows'\nmatches = '('",
            ["matches", "regular expression"],
        ),
        (
            "attribute = 'Rows'\nmatches = 'a{9999}{9999}'",
            ["matches", "regular expression"],
        ),
        ("attribute = 'Rows'\nrange = [3, 2]", ["`Rows`", "range"]),
        ("attribute = 'Rows'\nrange = [3, nan]", ["`Rows`", "range"]),
        ("attribute = 'Rows'", ["`Rows`", "has no test"]),
        ("attribute = 'Rows'\nany_of = []", ["`Rows`", "any_of"]),
        (
            "attribute = 'Rows'\nequals = true",
            ["`Rows`", "true nor false"],
        ),
        (
            "attribute = 'lossy'\nequals = 'no'",
            ["`lossy`", "true or false"],
        ),
        (
            "attribute = 'Modality'\nequals = ' '",
            ["`Modality`", "empty text"],
        ),
        (
            "attribute = 'instances'\nequals = 3",
            ["`instances`", "order_by"],
        ),
        ("attribute = 'Rows'\nequal = 3", ["equal", "unknown field"]),
    ] {
        for table in ["applies_to.where", "validated_for"] {
            let at = if table == "validated_for" {
                "#end"
            } else {
                "#[[applies_to.where]]"
            };
            let refusal = parse(&[(at, &format!("[[{table}]]\n{rule}"))]).unwrap_err();
            for word in words {
                assert!(refusal.contains(word), "{rule}: no {word} in {refusal}");
            }
        }
    }
    for (from, to, word) in [
        ("#applies", "choose = 'first'", "applies_to.order_by"),
        (
            "#applies",
            "order_by = [{ attribute = 'Rows' }]",
            "applies_to.order_by",
        ),
        ("#applies", "order_by = [{ attribute = 'Row' }]", "`Row`"),
        ("#applies", "rank = 2", "applies_to.rank"),
        (
            "#applies",
            "min_instances = 3\nmax_instances = 2",
            "applies_to.max_instances",
        ),
        (
            "\"instance\"",
            "\"study\"\nchoose = 'first'\norder_by = [{ attribute = 'Rows' }]",
            "applies_to.choose",
        ),
        ("#input", "role = 'pre'", "input.role"),
        (
            "#input",
            "[[input.where]]\nattribute = 'Rows'\npresent = true",
            "input.where",
        ),
        (
            "#end",
            "[[quality]]\nflag = 'saturated'\nlimit = 1.5",
            "quality.limit",
        ),
        (
            "#end",
            "[[quality]]\nflag = 'blurred'\nlimit = 0.5",
            "blurred",
        ),
    ] {
        let refusal = parse(&[(from, to)]).unwrap_err();
        assert!(refusal.contains(word), "{to}: {refusal}");
    }
}

fn fit(manifest: &Manifest, elements: &Elements) -> Option<Fit> {
    let file = elements.file();
    judge(
        manifest,
        &Instance {
            known: &Known::of_file(&file),
            data_set: file.data_set(),
        },
    )
}

#[test]
fn every_condition_must_hold_and_pixels_must_be_there() {
    let manifest = parse(&[(
        "#[[applies_to.where]]",
        "[[applies_to.where]]\nattribute = 'Rows'\nrange = [1, 2000]\n\
         [[applies_to.where]]\nattribute = 'ImageType'\nequals = 'PRIMARY'",
    )])
    .unwrap();
    assert_eq!(fit(&manifest, &film()).unwrap().outside, None);
    let change = |from: &[u8], to: &[u8]| {
        let mut film = film();
        let at = film.0.windows(from.len()).position(|w| w == from).unwrap();
        film.0[at..at + from.len()].copy_from_slice(to);
        fit(&manifest, &film)
    };
    assert!(change(b"PRIMARY", b"DERIVED").is_none());
    assert!(change(b"DX", b"CT").is_none());
    assert!(change(b"CS\x02\0PA", b"CS\x02\0LL").is_none());
    let mut text = film();
    text.0.truncate(text.0.len() - 20);
    assert!(fit(&manifest, &text).is_none());
}

#[test]
fn what_is_outside_names_attribute_and_range_and_nothing_of_the_patient() {
    let outside = |rule: &str| {
        let manifest = parse(&[("#end", &format!("[[validated_for]]\n{rule}"))]).unwrap();
        fit(&manifest, &film()).unwrap().outside
    };
    let says = |rule: &str, text: &str| assert_eq!(outside(rule).as_deref(), Some(text));
    says(
        "attribute = 'SliceThickness'\nrange = [0.5, 3]",
        "SliceThickness 8 outside 0.5 to 3",
    );
    says(
        "attribute = 'Manufacturer'\nany_of = ['Beta', 'Gamma']",
        "Manufacturer Acme Imaging outside Beta|Gamma",
    );
    says(
        "attribute = 'lossy'\nequals = false",
        "lossy true outside false",
    );
    says(
        "attribute = 'KVP'\nrange = [60, 120]",
        "KVP absent outside 60 to 120",
    );
    for (hidden, name) in [
        ("attribute = 'age_years'\nrange = [50, 80]", "age_years"),
        ("attribute = 'PatientAge'\nrange = [50, 80]", "PatientAge"),
        ("attribute = 'PatientID'\nequals = 'X'", "PatientID"),
        ("attribute = 'StudyDate'\nequals = 'X'", "StudyDate"),
        (
            "attribute = 'SeriesDescription'\nequals = 'X'",
            "SeriesDescription",
        ),
    ] {
        says(
            hidden,
            &format!("{name} outside of what the model was validated for"),
        );
    }
    assert_eq!(outside("attribute = 'age_years'\nrange = [18, 80]"), None);
}

/// Candidates from `(series, instance, slice thickness, contrast)`.
fn candidates(manifest: &Manifest, of: &[(&str, &str, &str, &str)]) -> Vec<Candidate<String>> {
    of.iter()
        .map(|(series, instance, thickness, contrast)| {
            let elements = Elements::default()
                .text((0x0008, 0x0060), b"CS", "DX")
                .text((0x0018, 0x0010), b"LO", contrast)
                .text((0x0018, 0x0050), b"DS", thickness)
                .text((0x0018, 0x5101), b"CS", "PA")
                .put((0x7FE0, 0x0010), b"OW", &[0; 8]);
            Candidate {
                item: (*instance).to_owned(),
                series: (*series).to_owned(),
                instance: (*instance).to_owned(),
                fit: fit(manifest, &elements).unwrap(),
            }
        })
        .collect()
}

#[test]
fn the_first_is_chosen_whatever_the_order_of_arrival() {
    let instances = [
        ("1", "1.1", "5", ""),
        ("2", "2.1", "3", ""),
        ("2", "2.2", "4", ""),
        ("3", "3.1", "", ""),
        ("4", "4.2", "3", ""),
    ];
    let chosen = |level: &str, by: &str| {
        let first = format!("\"{level}\"\nchoose = 'first'\norder_by = [{by}]");
        let manifest = parse(&[("\"instance\"", &first)]).unwrap();
        let mut all = candidates(&manifest, &instances);
        let inside = select(&manifest, all.clone()).unwrap().inside;
        all.reverse();
        let mut again = select(&manifest, all).unwrap().inside;
        again.sort();
        assert_eq!(inside, again);
        inside
    };
    let thin = "{ attribute = 'SliceThickness' }";
    let thick = "{ attribute = 'SliceThickness', descending = true }";
    // Equals: the lower UID.
    assert_eq!(chosen("instance", thin), ["2.1"]);
    assert_eq!(chosen("instance", thick), ["1.1"]);
    assert_eq!(chosen("series", thin), ["2.1", "2.2"]);
    assert_eq!(chosen("series", thick), ["1.1"]);
    let most = "{ attribute = 'instances', descending = true }";
    assert_eq!(chosen("series", most), ["2.1", "2.2"]);
    let few = "{ attribute = 'instances' }, { attribute = 'SliceThickness', descending = true }";
    assert_eq!(chosen("series", few), ["1.1"]);
}

#[test]
fn the_number_of_instances_has_bounds() {
    let manifest = parse(&[("#applies", "min_instances = 2\nmax_instances = 3")]).unwrap();
    let code = |count: usize| {
        let all = [
            ("1", "1.1", "1", ""),
            ("1", "1.2", "1", ""),
            ("1", "1.3", "1", ""),
            ("1", "1.4", "1", ""),
        ];
        let all = candidates(&manifest, &all[..count]);
        select(&manifest, all)
            .err()
            .map(|(refusal, _)| refusal.code)
    };
    assert_eq!(
        [1, 2, 3, 4].map(code),
        [
            Some("too-few-instances"),
            None,
            None,
            Some("too-many-instances")
        ]
    );
}

const GUARD: (&str, &str) = (
    "#end",
    "[[validated_for]]\nattribute = 'SliceThickness'\nrange = [0.5, 3]",
);

#[test]
fn instances_are_outside_alone_and_planes_with_their_series() {
    let instances = [
        ("1", "1.1", "1", ""),
        ("1", "1.2", "8", ""),
        ("2", "2.1", "2", ""),
    ];
    let of = |manifest: Manifest| {
        let all = candidates(&manifest, &instances);
        let selected = select(&manifest, all).unwrap();
        assert_eq!(selected.reason.unwrap().code, "outside-validation");
        (selected.inside, selected.outside)
    };
    let images = of(parse(&[GUARD]).unwrap());
    assert_eq!(images.0, ["1.1", "2.1"]);
    assert_eq!(images.1, ["1.2"]);
    let volume = [
        GUARD,
        ("\"instance\"", "\"series\""),
        ("\"NCHW\"", "\"NCDHW\"\ndepth = 4"),
        ("fit = \"stretch\"", ""),
        ("interpolation = \"bilinear-antialias\"", ""),
        (
            "#input",
            "[input.volume]\ninterpolation = 'linear'\nfit = 'stretch'",
        ),
    ];
    let volumes = of(parse(&volume).unwrap());
    assert_eq!(volumes.0, ["2.1"]);
    assert_eq!(volumes.1, ["1.1", "1.2"]);
}

fn roles(choose: &str) -> Manifest {
    let role = |role: &str, agent: &str| {
        format!("role = '{role}'\n[[input.where]]\nattribute = 'ContrastBolusAgent'\n{agent}\n")
    };
    let second = MANIFEST.split("[[input]]").nth(1).unwrap();
    let second = second.split("#input").next().unwrap();
    let inputs = format!(
        "{}[[input]]\n{}{}",
        role("pre-contrast", "present = false"),
        second.replace("\"image\"", "\"post\""),
        role("post-contrast", "present = true"),
    );
    parse(&[
        ("\"instance\"", &format!("\"study\"\n{choose}")),
        ("#input", &inputs),
    ])
    .unwrap()
}

#[test]
fn each_role_has_exactly_one_series() {
    let manifest = roles("");
    let inputs = manifest.inputs().unwrap();
    let names: Vec<_> = inputs
        .iter()
        .map(|i| (i.name.as_str(), i.role.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            ("image", Some("pre-contrast")),
            ("post", Some("post-contrast"))
        ]
    );
    let (pre, post) = (("1", "1.1", "1", ""), ("2", "2.1", "1", "Iohexol"));
    let of = |manifest: &Manifest, instances: &[(&str, &str, &str, &str)]| {
        select(manifest, candidates(manifest, instances))
    };
    let selected = of(&manifest, &[post, pre]).unwrap();
    assert_eq!(selected.roles, [["1.1"], ["2.1"]]);
    let why = |instances: &[(&str, &str, &str, &str)]| {
        let refusal = of(&manifest, instances).unwrap_err().0;
        (refusal.code, refusal.text)
    };
    let (code, text) = why(&[pre]);
    assert_eq!(code, "series-missing");
    assert!(text.contains("post-contrast"), "{text}");
    let (code, text) = why(&[pre, post, ("3", "3.1", "1", "")]);
    assert_eq!(code, "series-ambiguous");
    assert!(
        text.contains("2 series") && text.contains("pre-contrast"),
        "{text}"
    );
    // One series of two images.
    let (code, text) = why(&[pre, post, ("1", "1.2", "1", "")]);
    assert_eq!(code, "series-ambiguous");
    assert!(text.contains("2 images"), "{text}");
    let first = roles("choose = 'first'\norder_by = [{ attribute = 'SliceThickness' }]");
    let many = [
        post,
        ("3", "3.1", "2", ""),
        ("4", "4.1", "1", ""),
        ("4", "4.0", "1", ""),
    ];
    assert_eq!(of(&first, &many).unwrap().roles, [["4.0"], ["2.1"]]);
}

#[test]
fn a_group_runs_its_first_that_applies() {
    let applies = |group: Option<&str>, rank: u32| -> AppliesTo {
        let mut applies = parse(&[]).unwrap().applies_to;
        applies.group = group.map(str::to_owned);
        applies.rank = rank;
        applies
    };
    let models = [
        applies(None, 0),
        applies(Some("chest"), 2),
        applies(Some("chest"), 1),
        applies(Some("chest"), 1),
        applies(Some("head"), 0),
        applies(None, 0),
    ];
    let run = |which: [bool; 6]| -> Vec<bool> {
        let asked: Vec<_> = models.iter().zip(which).collect();
        first_of_groups(&asked)
    };
    assert_eq!(run([true; 6]), [true, false, true, false, true, true]);
    assert_eq!(
        run([true, true, false, false, false, true]),
        [true, true, false, false, false, true]
    );
    assert_eq!(
        run([false, true, false, true, true, false]),
        [false, false, false, true, true, false]
    );
}

#[test]
fn an_explanation_shows_each_condition_and_hides_the_patient() {
    let manifest = parse(&[
        GUARD,
        (
            "#[[applies_to.where]]",
            "[[applies_to.where]]\nattribute = 'PatientID'\npresent = true",
        ),
    ])
    .unwrap();
    let file = film().file();
    let known = Known::of_file(&file);
    let instance = Instance {
        known: &known,
        data_set: file.data_set(),
    };
    let checks = checks(&manifest, &instance);
    let shown: Vec<_> = checks
        .iter()
        .map(|c| (c.condition.as_str(), c.holds, c.found.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("applies_to.modality DX", true, "DX"),
            ("applies_to.view pa", true, "PA"),
            ("applies_to.where PatientID present", true, "(not shown)"),
            ("validated_for SliceThickness 0.5 to 3", false, "8"),
            ("pixel data", true, "present"),
        ]
    );
}
