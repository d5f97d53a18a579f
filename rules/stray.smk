# STRAY00: rate of light in each state of the chamber (basic), per CCD.


use rule check as stray_basic with:
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
        test=P.pattern("stray", "basic"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "basic", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "basic", "runtime_min"),
    params:
        step="stray",
        subtask="basic",
        job=lambda wc: P.job(wc.test, "basic", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "basic", wc.ccd),
