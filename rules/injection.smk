# CHINJ01, CHINJ02: injected lines frame by frame (extract), uniformity (basic), per CCD; curves (meta), of the block.


use rule check as injection_extract with:
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
        test=P.pattern("injection", "extract"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract", "runtime_min"),
    params:
        step="injection",
        subtask="extract",
        job=lambda wc: P.job(wc.test, "extract", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "extract", wc.ccd),


use rule check as injection_basic with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "basic", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/basic/basic.json",
    log:
        "<logs>/{test}_ccd{ccd}_basic.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_basic.tsv"
    wildcard_constraints:
        test=P.pattern("injection", "basic"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "basic", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "basic", "runtime_min"),
    params:
        step="injection",
        subtask="basic",
        job=lambda wc: P.job(wc.test, "basic", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "basic", wc.ccd),


use rule hk as injection_meta with:
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
        test=P.pattern("injection", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="injection",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta"),
        attempt=lambda wc: P.attempt(wc.test, "meta"),
