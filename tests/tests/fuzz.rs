//! Random packets through the loaded programs and through the model: no difference.

use weir_tests::{
    fuzz::{CLUSTER, run},
    packets::in_lab_of,
};

/// Sets of the flow tables: enough for a round.
const SETS: u32 = 16_384;

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn programs_and_model_agree_on_random_packets() {
    let count = environment("WEIR_FUZZ_PACKETS").unwrap_or(60_000);
    let seed = environment("WEIR_FUZZ_SEED").unwrap_or(1);
    let tally =
        in_lab_of(SETS, "n1", CLUSTER, |lab| run(lab, seed, count)).unwrap_or_else(|found| panic!("{found}"));
    println!("{tally:?}");
    assert!(tally.waited > 0 && tally.again > 0, "no fragment came before its first: {tally:?}");
    // Else the packets would prove nothing.
    for (what, number) in
        [("dropped", tally.dropped), ("redirected", tally.redirected), ("changed", tally.changed)]
    {
        assert!(number * 20 > tally.judged, "hardly any was {what}: {tally:?}");
    }
}
