# NL01, NL02: signals of tiles (extract) and transfer near the full well (satCTE) per CCD; non-linearity, lamp and
# shutter (NL) for the block.


use rule check as nonlinearity_extract with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/extract/extract.json",
    log:
        "<logs>/{test}_ccd{ccd}_extract.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_extract.tsv"
    wildcard_constraints:
        test=P.pattern("nonlinearity", "extract"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract", "runtime_min"),
    params:
        step="nonlinearity",
        subtask="extract",
        job=lambda wc: P.job(wc.test, "extract", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "extract", wc.ccd),


use rule check as nonlinearity_satCTE with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "satCTE", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/satCTE/satCTE.json",
    log:
        "<logs>/{test}_ccd{ccd}_satCTE.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_satCTE.tsv"
    wildcard_constraints:
        test=P.pattern("nonlinearity", "satCTE"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "satCTE", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "satCTE", "runtime_min"),
    params:
        step="nonlinearity",
        subtask="satCTE",
        job=lambda wc: P.job(wc.test, "satCTE", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "satCTE", wc.ccd),


use rule hk as nonlinearity_NL with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "NL", None),
    output:
        "<results>/{test}/block/NL/NL.json",
    log:
        "<logs>/{test}_NL.log",
    benchmark:
        "<benchmarks>/{test}_NL.tsv"
    wildcard_constraints:
        test=P.pattern("nonlinearity", "NL"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "NL", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "NL", "runtime_min"),
    params:
        step="nonlinearity",
        subtask="NL",
        job=lambda wc: P.job(wc.test, "NL"),
        attempt=lambda wc: P.attempt(wc.test, "NL"),
