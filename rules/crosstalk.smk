# Cross-talk from the spots of PSF01 and PSF02: patches per CCD (xtalk_sex), fit of the twelve channels
# (xtalk_build), matrix and requirement (xtalk_meta) of the block.


use rule check as crosstalk_xtalk_sex with:
    input:
        manifest="<results>/{test}/manifest.json",
        # Patches are cut where any of the three CCDs has spots: all their locks are read.
        after=lambda wc: P.after(wc.test, "xtalk_sex", None),
    output:
        "<results>/{test}/ccd{ccd}/xtalk_sex/xtalk_sex.json",
    log:
        "<logs>/{test}_ccd{ccd}_xtalk_sex.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_xtalk_sex.tsv"
    wildcard_constraints:
        test=P.pattern("point", "xtalk_sex"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "xtalk_sex", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "xtalk_sex", "runtime_min"),
    params:
        step="crosstalk",
        subtask="xtalk_sex",
        job=lambda wc: P.job(wc.test, "xtalk_sex", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "xtalk_sex", wc.ccd),


use rule hk as crosstalk_xtalk_build with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "xtalk_build", None),
    output:
        "<results>/{test}/block/xtalk_build/xtalk_build.json",
    log:
        "<logs>/{test}_xtalk_build.log",
    benchmark:
        "<benchmarks>/{test}_xtalk_build.tsv"
    wildcard_constraints:
        test=P.pattern("point", "xtalk_build"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "xtalk_build", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "xtalk_build", "runtime_min"),
    params:
        step="crosstalk",
        subtask="xtalk_build",
        job=lambda wc: P.job(wc.test, "xtalk_build"),
        attempt=lambda wc: P.attempt(wc.test, "xtalk_build"),


use rule hk as crosstalk_xtalk_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "xtalk_meta", None),
    output:
        "<results>/{test}/block/xtalk_meta/xtalk_meta.json",
    log:
        "<logs>/{test}_xtalk_meta.log",
    benchmark:
        "<benchmarks>/{test}_xtalk_meta.tsv"
    wildcard_constraints:
        test=P.pattern("point", "xtalk_meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "xtalk_meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "xtalk_meta", "runtime_min"),
    params:
        step="crosstalk",
        subtask="xtalk_meta",
        job=lambda wc: P.job(wc.test, "xtalk_meta"),
        attempt=lambda wc: P.attempt(wc.test, "xtalk_meta"),
