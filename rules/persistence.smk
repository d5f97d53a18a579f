# PERSIST01: charge released after saturation (basic), its amplitude and decay (meta), per CCD.


use rule check as persistence_basic with:
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
        test=P.pattern("persistence", "basic"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "basic", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "basic", "runtime_min"),
    params:
        step="persistence",
        subtask="basic",
        job=lambda wc: P.job(wc.test, "basic", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "basic", wc.ccd),


use rule check as persistence_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/meta/meta.json",
    log:
        "<logs>/{test}_ccd{ccd}_meta.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("persistence", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="persistence",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "meta", wc.ccd),
