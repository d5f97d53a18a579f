# PTC01, PTC02: covariances of pairs of flats (extract_PTC) per CCD; model, gain product (meta) and response
# behind the edges of the image (extract_HER) for the block.


use rule check as ptc_extract_PTC with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_PTC", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/extract_PTC/extract_PTC.json",
    log:
        "<logs>/{test}_ccd{ccd}_extract_PTC.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_extract_PTC.tsv"
    wildcard_constraints:
        test=P.pattern("ptc", "extract_PTC"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_PTC", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_PTC", "runtime_min"),
    params:
        step="ptc",
        subtask="extract_PTC",
        job=lambda wc: P.job(wc.test, "extract_PTC", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "extract_PTC", wc.ccd),


use rule hk as ptc_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", None),
    output:
        "<results>/{test}/block/meta/meta.json",
    log:
        "<logs>/{test}_meta.log",
    benchmark:
        "<benchmarks>/{test}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("ptc", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="ptc",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta"),
        attempt=lambda wc: P.attempt(wc.test, "meta"),


use rule hk as ptc_extract_HER with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_HER", None),
    output:
        "<results>/{test}/block/extract_HER/extract_HER.json",
    log:
        "<logs>/{test}_extract_HER.log",
    benchmark:
        "<benchmarks>/{test}_extract_HER.tsv"
    wildcard_constraints:
        test=P.pattern("ptc", "extract_HER"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_HER", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_HER", "runtime_min"),
    params:
        step="ptc",
        subtask="extract_HER",
        job=lambda wc: P.job(wc.test, "extract_HER"),
        attempt=lambda wc: P.attempt(wc.test, "extract_HER"),
