//! Each signature format line by line, and why a line is not taken.

use super::logical::Terms;
use super::*;

const MD5: &str = "44d88612fea8a8f36de82e1278abb02f";

fn reason(format: Format, line: &str) -> &'static str {
    read(format, line.as_bytes()).unwrap_err().0
}

fn hash(format: Format, line: &str) -> HashSignature {
    match read(format, line.as_bytes()) {
        Ok(Some(Signature::Hash(hash))) => hash,
        other => panic!("{line}: {other:?}"),
    }
}

fn pattern(format: Format, line: &str) -> Logical {
    match read(format, line.as_bytes()) {
        Ok(Some(Signature::Pattern(pattern))) => pattern,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_file_is_known_by_its_extension() {
    assert_eq!(Format::of("main.HDB"), Some(Format::FileHash));
    assert_eq!(Format::of("daily.ldu"), Some(Format::Logical));
    assert_eq!(Format::of("COPYING"), None);
    assert_eq!(Format::of("readme.txt"), None);
    assert!(matches!(Format::of("daily.ftm"), Some(Format::Unused(_))));
}

#[test]
fn digests_of_files_are_read() {
    let found = hash(Format::FileHash, &format!("{MD5}:68:Eicar-Test-Signature"));
    assert_eq!((found.role, found.kind, found.size), (HashRole::File, DigestKind::Md5, Some(68)));
    assert_eq!((found.name.as_str(), found.digest[0]), ("Eicar-Test-Signature", 0x44));
    let any = hash(Format::FileHash, &format!("{}:*:Any.Size:73", "ab".repeat(32)));
    assert_eq!((any.kind, any.size), (DigestKind::Sha256, None));
    assert_eq!(hash(Format::FileHash, &format!("{}:1:S", "0f".repeat(20))).kind, DigestKind::Sha1);
    assert_eq!(hash(Format::AllowHash, &format!("{MD5}:68:fine")).role, HashRole::Allow);
    assert_eq!(hash(Format::ImportHash, &format!("{MD5}:68:Imp")).role, HashRole::Import);
    let section = hash(Format::SectionHash, &format!("4096:{MD5}:Sect"));
    assert_eq!((section.role, section.size), (HashRole::Section, Some(4096)));
}

#[test]
fn lists_of_digests_are_read_as_tools_print_them() {
    let found = hash(Format::PlainHash, &format!("{MD5}  evil file.bin"));
    assert_eq!((found.name.as_str(), found.size), ("evil_file.bin", None));
    assert_eq!(hash(Format::PlainHash, MD5).name, "Hash.44d88612fea8a8f3");
}

#[test]
fn a_digest_that_is_none_says_why() {
    assert_eq!(reason(Format::FileHash, "xyz:68:Name"), "digests that are not hexadecimal");
    assert_eq!(reason(Format::FileHash, "abcd:68:Name"), "digests of a length that is not MD5, SHA-1 or SHA-256");
    assert_eq!(reason(Format::FileHash, &format!("{MD5}:many:Name")), "sizes that are no numbers");
    assert_eq!(reason(Format::FileHash, MD5), "lines with too few fields");
    assert_eq!(reason(Format::FileHash, &format!("{MD5}:1:")), "names that are empty, too long or not printable");
    assert_eq!(reason(Format::FileHash, &format!("{MD5}:*:N:999")), "lines for other versions of ClamAV's engine");
    assert_eq!(read(Format::FileHash, b"\xFF\xFE:1:x").unwrap_err().0, "lines that are not UTF-8");
}

#[test]
fn empty_lines_and_comments_are_nothing() {
    for line in ["", "   ", "# a comment", "\r"] {
        assert_eq!(read(Format::Extended, line.as_bytes()), Ok(None), "{line:?}");
    }
}

#[test]
fn names_that_count_for_nothing_are_read_in_both_forms() {
    let ignored = |line: &str| read(Format::Ignore, line.as_bytes()).unwrap().unwrap();
    assert_eq!(ignored("Eicar-Test-Signature"), Signature::Ignore("Eicar-Test-Signature".into()));
    assert_eq!(ignored(&format!("Eicar:{MD5}")), Signature::Ignore("Eicar".into()));
    assert_eq!(ignored("daily.ndb:123:Eicar"), Signature::Ignore("Eicar".into()));
}

#[test]
fn patterns_are_read_into_segments() {
    let found = pattern(Format::Extended, "Name:1:EP+0,16:4d5a??5?*6162{4}63");
    assert_eq!(found.terms.target, Target::Pe);
    let (sub, _, body) = &found.bodies[0];
    assert_eq!((*sub, body.segments.len()), (0, 2));
    assert_eq!(
        body.segments[0].nodes,
        [Node::Bytes(vec![0x4D, 0x5A]), Node::Gap { min: 1, max: 1 }, Node::Masked { value: 0x50, mask: 0xF0 }]
    );
    assert_eq!(body.segments[1].nodes[1], Node::Gap { min: 4, max: 4 });
    let alternatives = pattern(Format::Extended, "Name:0:*:aabb(cc|dd)!(00|01)[1-2]ee");
    assert_eq!(alternatives.bodies[0].2.segments[0].nodes.len(), 5);
    let open = pattern(Format::Extended, "Name:0:*:aabb{10-}ccdd");
    assert_eq!(open.bodies[0].2.segments[1].after, 10);
    let beside = pattern(Format::Extended, "Name:0:*:aabb{3}*{2-4}ccdd");
    assert_eq!((beside.bodies[0].2.segments.len(), beside.bodies[0].2.segments[1].after), (2, 5));
}

#[test]
fn a_pattern_that_cannot_be_looked_for_says_why() {
    let cases = [
        ("Name:0:*:zz", "patterns that can't be read"),
        ("Name:0:*:abc", "patterns of half a byte"),
        ("Name:0:*:", "patterns that are empty"),
        ("Name:0:*:aa*bb", "patterns without two fixed bytes in a row between their jumps"),
        ("Name:0:*:aabb{5-2}cc", "jumps that can't be read"),
        ("Name:0:*:aabb{0-65000}cc", "patterns with jumps that are too wide"),
        ("Name:0:*:aabb(B)", "boundaries in patterns"),
        ("Name:0:*:aabb(cc", "patterns that can't be read"),
        ("Name:0:*:aabb(cc|)", "alternatives that are empty or too many"),
        ("Name:99:*:aabb", "target types that are not known"),
        ("Name:0:VI:aabb", "offsets in version information"),
        ("Name:0:$1:aabb", "offsets by macro"),
        ("Name:0:EOF+x:aabb", "offsets that can't be read"),
        ("Name:0:*", "lines with too few fields"),
    ];
    for (line, wanted) in cases {
        assert_eq!(reason(Format::Extended, line), wanted, "{line}");
    }
}

#[test]
fn logical_signatures_are_read() {
    let found =
        pattern(Format::Logical, "Name;Engine:51-255,Target:1,FileSize:10-2000;(0|1)&2>1;aabb;EP+0:ccdd;6162::i");
    assert_eq!(found.terms, Terms { target: Target::Pe, size: Some((10, 2000)), ..Terms::default() });
    assert_eq!(found.bodies.len(), 3);
    assert!(found.bodies[2].2.fold);
    let holds = |counts: [u32; 3]| found.expression.holds(&|sub| counts[usize::from(sub)]);
    assert!(holds([1, 0, 2]) && holds([0, 5, 9]));
    assert!(!holds([1, 0, 1]) && !holds([0, 0, 2]));
}

#[test]
fn counts_over_groups_hold_as_clamav_has_them() {
    let holds = |expression: &str, counts: [u32; 3]| {
        let line = format!("N;Target:0;{expression};aabb;ccdd;eeff");
        pattern(Format::Logical, &line).expression.holds(&|sub| counts[usize::from(sub)])
    };
    assert!(holds("0=2", [2, 0, 0]) && !holds("0=2", [3, 0, 0]));
    assert!(holds("0&1<3", [1, 2, 0]) && !holds("0&1<3", [1, 3, 0]));
    assert!(holds("(0|1|2)>3,2", [2, 2, 0]) && !holds("(0|1|2)>3,2", [4, 0, 0]));
    assert!(holds("0&(1=0)", [1, 0, 0]) && !holds("0&(1=0)", [1, 1, 0]));
}

#[test]
fn wide_and_ascii_are_two_bodies_of_one_pattern() {
    let found = pattern(Format::Logical, "N;Target:0;0;616263::wa");
    assert_eq!(found.bodies.len(), 2);
    assert_eq!(found.bodies[0].2.segments[0].nodes, [Node::Bytes(b"a\0b\0c\0".to_vec())]);
    assert_eq!(found.bodies[1].2.segments[0].nodes, [Node::Bytes(b"abc".to_vec())]);
}

#[test]
fn a_logical_signature_that_is_not_taken_says_why() {
    let cases = [
        ("N;Target:0;0;0/abc/", "logical expressions that name a pattern they do not have"),
        ("N;Target:0;0;${1-2}3$", "macros"),
        ("N;Target:0;0&1;aabb;0(>>5#hb2#=1)", "fuzzy hashes and comparisons of bytes"),
        ("N;Target:0;0&5;aabb", "logical expressions that name a pattern they do not have"),
        ("N;Target:0;0&;aabb", "logical expressions that can't be read"),
        ("N;Target:0;(0;aabb", "logical expressions that can't be read"),
        ("N;Target:0;0<0;aabb", "logical expressions that can't be read"),
        ("N;Target:0,IconGroup1:x;0;aabb", "icons"),
        ("N;Engine:500-900,Target:0;0;aabb", "lines for other versions of ClamAV's engine"),
        ("N;Colour:1;0;aabb", "terms that are not known"),
        ("N;Target:0;0", "lines with too few fields"),
        ("N;Target:0;0;aabb::q", "modifiers of patterns that are not known"),
    ];
    for (line, wanted) in cases {
        assert_eq!(reason(Format::Logical, line), wanted, "{line}");
    }
    let deep = format!("N;Target:0;{}0{};aabb", "(".repeat(200), ")".repeat(200));
    assert_eq!(reason(Format::Logical, &deep), "logical expressions that are too deep");
}

#[test]
fn members_of_archives_are_read() {
    let line = r"Zip.Exe:CL_TYPE_ZIP:*:\.exe$:*:1-1000:0:1:*:*";
    let Ok(Some(Signature::Member(member))) = read(Format::Container, line.as_bytes()) else { panic!("not taken") };
    assert_eq!(
        (member.container.as_str(), member.size, member.encrypted),
        ("CL_TYPE_ZIP", Some((1, 1000)), Some(false))
    );
    assert!(member.file.matches("SETUP.EXE") && !member.file.matches("exe.txt"));
    let line = "N:*:*:inv[o0]ice:*:*:*:*:*:*";
    assert_eq!(reason(Format::Container, line), "regular expressions");
}

#[test]
fn our_own_rules_are_read() {
    let found = pattern(Format::Ours, "Fake.1 ; pdf ; 10-20 ; text \"Pay At Once\"");
    assert_eq!((found.terms.target, found.terms.size), (Target::Pdf, Some((10, 20))));
    assert!(found.bodies[0].2.fold);
    assert_eq!(pattern(Format::Ours, "Fake.2 ; any ; * ; hex 4d5a{-64}5045").bodies.len(), 1);
    assert_eq!(hash(Format::Ours, &format!("Fake.3 ; any ; 68 ; md5 {MD5}")).size, Some(68));
    assert_eq!(reason(Format::Ours, "Fake.4 ; tape ; * ; hex aabb"), "rules with a type that is not known");
    assert_eq!(reason(Format::Ours, "Fake.5 ; any ; * ; regex a+"), "rules that can't be read");
}

#[test]
fn unused_files_are_counted_by_reason() {
    assert_eq!(reason(Format::of("daily.pdb").unwrap(), "R:a:b"), "phishing addresses");
    assert_eq!(reason(Format::of("bytecode.cbc").unwrap(), "x"), "bytecode");
}

#[test]
fn places_hold_where_they_should() {
    let holds = |text: &str, start: u64, size: u64| Place::parse(text).unwrap().holds(start, size, None);
    assert!(holds("*", 77, 100));
    assert!(holds("10", 10, 100) && !holds("10", 11, 100));
    assert!(holds("10,5", 15, 100) && !holds("10,5", 16, 100));
    assert!(holds("EOF-10", 90, 100) && !holds("EOF-10", 91, 100));
    assert!(!holds("EP+0", 0, 100) && !holds("S0+0", 0, 100));
}

/// The first block of daily.cvd 25784, as ClamAV published it.
const DAILY: &str = "ClamAV-VDB:16 Apr 2020 07-58 -0400:25784:2267600:63:92baacd59fd26e6bcf03077add78d209:4Jp9JtGJY6nUk8JHDQQpQeBwlfXqskvhXL+vesDNqAeWCmjbudU+Hy/Nj4/BH2vl70c/R5B/VYY+eqqCQo6o7VGLqLJr/E+19gejqMp/iRcuHrtnLw6V/x3UjO3/qYVSlcJvAjtMI7FK32wjB+Sp8kaS/ZbfaFQp6trRQhisjqf:raynman:1587038339";

#[test]
fn a_containers_signature_is_checked_with_clamavs_key() {
    let header = |text: &str| cvd::CvdHeader::parse(format!("{text:<512}").as_bytes()).unwrap();
    let daily = header(DAILY);
    assert_eq!((daily.version, daily.signatures, daily.level), (25784, 2_267_600, 63));
    assert!(daily.is_signed());
    assert!(!header(&DAILY.replace("92baacd5", "92baacd6")).is_signed());
    assert!(!header(&DAILY.replace("4Jp9", "4Jp8")).is_signed());
    assert!(!header(&DAILY.replace("4Jp9", "*Jp9")).is_signed());
    assert!(cvd::CvdHeader::parse(b"ClamAV-VDB:short").is_none());
}

proptest::proptest! {
    #[test]
    fn no_line_is_a_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), kind in 0_usize..10) {
        let formats = ["a.hdb", "a.mdb", "a.imp", "a.fp", "a.ign2", "a.ndb", "a.ldb", "a.cdb", "a.rules", "a.md5"];
        let _ = read(Format::of(formats[kind]).unwrap(), &line);
    }

    #[test]
    fn no_pattern_is_a_panic(hex in "[0-9a-f?*(){}|!\\[\\]-]{0,60}") {
        if let Ok(body) = Body::parse(&hex) {
            for segment in &body.segments {
                let anchor = segment.anchor().unwrap();
                proptest::prop_assert!(segment.anchored(anchor).len() >= body::ANCHOR_MIN);
            }
        }
    }
}
