"""Lines of JSON as senders write them, each with the record that must come of it."""

from datetime import UTC, datetime
from typing import Any

THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
SECOND = THEN.replace(microsecond=0)

#: Sender, line, fields besides `message` = "it works" and `timestamp` = THEN.
LINES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "pino",
        '{"level":50,"time":1791756855003,"pid":12,"hostname":"h","name":"shop","msg":"it works","err":{"type":"E"}}',
        {"severity": 3, "host": "h", "service": "shop", "attributes": {"pid": 12, "err": {"type": "E"}}},
    ),
    (
        "bunyan",
        '{"name":"shop","hostname":"h","pid":1,"level":40,"msg":"it works","time":"2026-10-11T22:14:15.003Z","v":0}',
        {"severity": 4, "host": "h", "service": "shop", "attributes": {"pid": 1, "v": 0}},
    ),
    (
        "ECS, dotted",
        '{"@timestamp":"2026-10-11T22:14:15.003Z","log.level":"WARN","message":"it works","ecs.version":"1.2.0",'
        '"service.name":"shop","service.environment":"prod","log.logger":"a.b","trace.id":"t1","span.id":"s1"}',
        {
            "severity": 4,
            "service": "shop",
            "environment": "prod",
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"ecs.version": "1.2.0", "log.logger": "a.b"},
        },
    ),
    (
        "ECS, nested",
        '{"@timestamp":"2026-10-11T22:14:15.003Z","log":{"level":"error","logger":"a.b"},"message":"it works",'
        '"service":{"name":"shop","environment":"prod"},"host":{"name":"h"},"trace":{"id":"t1"},"span":{"id":"s1"}}',
        {
            "severity": 3,
            "service": "shop",
            "environment": "prod",
            "host": "h",
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"log": {"logger": "a.b"}},
        },
    ),
    (
        "ECS, the original only",
        '{"@timestamp":"2026-10-11T22:14:15.003Z","event":{"original":"it works","dataset":"shop.log"}}',
        {"attributes": {"event": {"dataset": "shop.log"}}},
    ),
    (
        "OpenTelemetry names",
        '{"timestamp":"2026-10-11T22:14:15.003Z","severity_number":17,"body":"it works","deployment.environment.name":'
        '"prod","host.name":"h","k8s.container.name":"shop","k8s.pod.name":"p","trace_id":"t1","span_id":"s1"}',
        {
            "severity": 3,
            "environment": "prod",
            "host": "h",
            "service": "shop",
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"k8s.pod.name": "p"},
        },
    ),
    (
        "OpenTelemetry, a resource",
        '{"Timestamp":"2026-10-11T22:14:15.003Z","SeverityText":"Error","SeverityNumber":9,"Body":"it works",'
        '"resource":{"attributes":{"service.name":"shop","host.name":"h","deployment.environment":"prod"}},'
        '"TraceId":"t1","SpanId":"s1"}',
        {
            "severity": 3,
            "service": "shop",
            "host": "h",
            "environment": "prod",
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"SeverityNumber": 9},
        },
    ),
    (
        "fluent-bit in Kubernetes",
        '{"date":1791756855.003,"stream":"stderr","log":"it works\\n","kubernetes":{"pod_name":"p",'
        '"namespace_name":"n","labels":{"app.kubernetes.io/name":"shop"},"host":"node1","container_name":"c"}}',
        {
            "service": "shop",
            "host": "node1",
            "attributes": {
                "stream": "stderr",
                "kubernetes": {"pod_name": "p", "namespace_name": "n", "container_name": "c"},
            },
        },
    ),
    (
        "fluent-bit from OpenTelemetry",
        '{"date":1791756855.003,"__internal__":{"group_attributes":{"resource":{"attributes":{"service.name":"shop"}},'
        '"scope":{"name":"a"}},"log_metadata":{"otlp":{"severity_text":"ERROR","severity_number":17,"trace_id":"t1",'
        '"span_id":"s1","attributes":{"k":1}}}},"log":"it works"}',
        {
            "severity": 3,
            "service": "shop",
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"scope": {"name": "a"}, "otlp": {"severity_number": 17, "attributes": {"k": 1}}},
        },
    ),
    (
        "fluent-bit, gelf",
        '{"version":"1.1","short_message":"it works","host":"h","timestamp":1791756855.003,"level":4,"_env":"prod",'
        '"_user":"u","full_message":"it works\\nwell"}',
        {
            "severity": 4,
            "host": "h",
            "environment": "prod",
            "attributes": {"version": "1.1", "user": "u", "full_message": "it works\nwell"},
        },
    ),
    (
        "fluent-bit, syslog parser",
        '{"date":1791756855.003,"pri":"34","time":"Oct 11 22:14:15","host":"h","ident":"su","pid":"1",'
        '"message":"it works"}',
        {
            "severity": 2,
            "facility": 4,
            "host": "h",
            "service": "su",
            "attributes": {"pri": "34", "time": "Oct 11 22:14:15", "pid": "1"},
        },
    ),
    (
        "filebeat",
        '{"@timestamp":"2026-10-11T22:14:15.003Z","agent":{"type":"filebeat"},"log":{"offset":7},"message":"it works",'
        '"kubernetes":{"container":{"name":"c"},"labels":{"app_kubernetes_io/name":"shop"},"node":{"name":"node1"},'
        '"pod":{"name":"p"}},"fields":{"env":"prod"}}',
        {
            "service": "shop",
            "host": "node1",
            "environment": "prod",
            "attributes": {
                "agent": {"type": "filebeat"},
                "log": {"offset": 7},
                "kubernetes": {"container": {"name": "c"}, "pod": {"name": "p"}},
            },
        },
    ),
    (
        "Docker, json-file",
        '{"log":"it works\\n","stream":"stderr","time":"2026-10-11T22:14:15.003000999Z"}',
        {"attributes": {"stream": "stderr"}},
    ),
    (
        "Docker, fluentd driver",
        '{"date":1791756855.003,"container_id":"ab","container_name":"/shop","log":"it works"}',
        {"service": "shop", "attributes": {"container_id": "ab"}},
    ),
    (
        "Serilog, compact",
        '{"@t":"2026-10-11T22:14:15.0030000Z","@mt":"it works","@l":"Fatal","@x":"E: no","@tr":"t1","@sp":"s1","Id":1,'
        '"MachineName":"h"}',
        {"severity": 2, "trace_id": "t1", "span_id": "s1", "host": "h", "attributes": {"@x": "E: no", "Id": 1}},
    ),
    (
        "Serilog, rendered",
        '{"Timestamp":"2026-10-11T22:14:15.003+00:00","Level":"Error","MessageTemplate":"it {W}",'
        '"RenderedMessage":"it works","Properties":{"W":"works"}}',
        {"severity": 3, "attributes": {"MessageTemplate": "it {W}", "Properties": {"W": "works"}}},
    ),
    (
        "zap",
        '{"level":"dpanic","ts":1791756855.003,"logger":"x","caller":"a/b.go:12","msg":"it works"}',
        {"severity": 2, "attributes": {"logger": "x", "caller": "a/b.go:12"}},
    ),
    (
        "klog",
        '{"ts":1791756855003.4,"caller":"a.go:1","msg":"it works","v":0}',
        {"timestamp": THEN.replace(microsecond=3400), "attributes": {"caller": "a.go:1", "v": 0}},
    ),
    ("zerolog", '{"level":"warn","time":1791756855,"message":"it works"}', {"severity": 4, "timestamp": SECOND}),
    (
        "logrus",
        '{"level":"warning","msg":"it works","time":"2026-10-11T22:14:15Z"}',
        {"severity": 4, "timestamp": SECOND},
    ),
    ("slog", '{"time":"2026-10-11T22:14:15.003Z","level":"ERROR+2","msg":"it works"}', {"severity": 3}),
    (
        "hclog (Terraform, Vault)",
        '{"@level":"error","@message":"it works","@module":"core","@timestamp":"2026-10-11T22:14:15.003000Z"}',
        {"severity": 3, "attributes": {"@module": "core"}},
    ),
    (
        "Log4j 2",
        '{"instant":{"epochSecond":1791756855,"nanoOfSecond":3000000},"thread":"main","level":"FATAL",'
        '"loggerName":"a.b","message":"it works"}',
        {"severity": 2, "attributes": {"thread": "main", "loggerName": "a.b"}},
    ),
    (
        "Log4j 2, timeMillis",
        '{"timeMillis":1791756855003,"level":"WARN","message":"it works","contextMap":{"traceId":"t1"}}',
        {"severity": 4, "trace_id": "t1"},
    ),
    (
        "logstash-logback-encoder",
        '{"@timestamp":"2026-10-11T22:14:15.003+00:00","@version":"1","message":"it works","logger_name":"a.b",'
        '"level":"ERROR","level_value":40000}',
        {"severity": 3, "attributes": {"@version": "1", "logger_name": "a.b", "level_value": 40000}},
    ),
    (
        "Quarkus",
        '{"timestamp":"2026-10-11T22:14:15.003+00:00","level":"SEVERE","message":"it works","hostName":"h",'
        '"mdc":{"traceId":"t1","spanId":"s1"}}',
        {"severity": 3, "host": "h", "trace_id": "t1", "span_id": "s1"},
    ),
    ("winston", '{"level":"http","message":"it works","timestamp":"2026-10-11T22:14:15.003Z"}', {}),
    (
        "python-json-logger",
        '{"asctime":"2026-10-11 22:14:15,003","levelname":"ERROR","name":"a.b","message":"it works"}',
        {"severity": 3, "attributes": {"name": "a.b"}},
    ),
    (
        "structlog",
        '{"event":"it works","level":"error","timestamp":"2026-10-11T22:14:15.003Z","k":1}',
        {"severity": 3, "attributes": {"k": 1}},
    ),
    (
        "loguru",
        '{"text":"2026 it works\\n","record":{"level":{"name":"ERROR","no":40},"message":"it works",'
        '"time":{"repr":"x","timestamp":1791756855.003}}}',
        {
            "severity": 3,
            "attributes": {"text": "2026 it works\n", "record": {"level": {"no": 40}, "time": {"repr": "x"}}},
        },
    ),
    (
        "Rust, tracing",
        '{"timestamp":"2026-10-11T22:14:15.003000Z","level":"ERROR","fields":{"message":"it works","k":1},'
        '"target":"a"}',
        {"severity": 3, "attributes": {"fields": {"k": 1}, "target": "a"}},
    ),
    (
        "Monolog",
        '{"message":"it works","context":[],"level":550,"level_name":"ALERT",'
        '"datetime":"2026-10-11T22:14:15.003+00:00"}',
        {"severity": 1, "attributes": {"context": [], "level": 550}},
    ),
    (
        "Google Cloud, export",
        '{"severity":"EMERGENCY","textPayload":"it works","timestamp":"2026-10-11T22:14:15.003Z",'
        '"logName":"projects/p/logs/x","trace":"projects/p/traces/t1","spanId":"s1"}',
        {
            "severity": 0,
            "trace_id": "t1",
            "span_id": "s1",
            "attributes": {"logName": "projects/p/logs/x", "trace": "projects/p/traces/t1"},
        },
    ),
    (
        "Google Cloud, jsonPayload",
        '{"severity":"ERROR","jsonPayload":{"message":"it works","k":1},"timestamp":"2026-10-11T22:14:15.003Z"}',
        {"severity": 3, "attributes": {"jsonPayload": {"k": 1}}},
    ),
    (
        "AWS Lambda Powertools",
        '{"level":"ERROR","location":"a:1","message":"it works","timestamp":"2026-10-11 22:14:15,003+0000",'
        '"service":"shop","xray_trace_id":"1-5759e988"}',
        {"severity": 3, "service": "shop", "trace_id": "1-5759e988", "attributes": {"location": "a:1"}},
    ),
    (
        "Datadog",
        '{"ddsource":"nginx","ddtags":"a:b","hostname":"h","message":"it works","service":"shop","status":"error",'
        '"timestamp":1791756855003,"dd":{"env":"prod","trace_id":"17","span_id":"18"}}',
        {
            "severity": 3,
            "host": "h",
            "service": "shop",
            "environment": "prod",
            "trace_id": "17",
            "span_id": "18",
            "attributes": {"ddsource": "nginx", "ddtags": "a:b"},
        },
    ),
    (
        "syslog-ng, format-json",
        '{"PROGRAM":"su","PRIORITY":"crit","PID":"1","MESSAGE":"it works","HOST":"h","FACILITY":"auth",'
        '"ISODATE":"2026-10-11T22:14:15.003+00:00"}',
        {"severity": 2, "facility": 4, "host": "h", "service": "su", "attributes": {"PID": "1"}},
    ),
    (
        "syslog-ng, without year",
        '{"PROGRAM":"su","MESSAGE":"it works","HOST":"h","DATE":"Oct 11 22:14:15"}',
        {"host": "h", "service": "su", "timestamp": SECOND, "attributes": {"DATE": "Oct 11 22:14:15"}},
    ),
    (
        "rsyslog, StdJSONFmt",
        '{"message":"it works","fromhost":"h","facility":"mail","priority":"err",'
        '"timereported":"2026-10-11T22:14:15.003+00:00","timegenerated":"2026-10-11T22:14:16+00:00"}',
        {"severity": 3, "facility": 2, "host": "h", "attributes": {"timegenerated": "2026-10-11T22:14:16+00:00"}},
    ),
    (
        "rsyslog, jsonmesg",
        '{"msg":"it works","timereported":"2026-10-11T22:14:15.003+00:00","hostname":"h","syslogfacility":"4",'
        '"syslogseverity":"2","programname":"su"}',
        {"severity": 2, "facility": 4, "host": "h", "service": "su"},
    ),
    (
        "Logstash, syslog",
        '{"@timestamp":"2026-10-11T22:14:15.003Z","logsource":"h","program":"su","severity":2,"facility":4,'
        '"message":"it works","priority":34}',
        {"severity": 2, "facility": 4, "host": "h", "service": "su", "attributes": {"priority": 34}},
    ),
    (
        "journald",
        '{"__REALTIME_TIMESTAMP":"1791756855003000","PRIORITY":"3","MESSAGE":"it works","_HOSTNAME":"h",'
        '"SYSLOG_IDENTIFIER":"su","SYSLOG_FACILITY":"10","_PID":"7"}',
        {"severity": 3, "facility": 10, "host": "h", "service": "su", "attributes": {"_PID": "7"}},
    ),
    (
        "journald, lower case",
        '{"date":1791756855.003,"priority":"3","message":"it works","_hostname":"h","syslog_identifier":"su"}',
        {"severity": 3, "host": "h", "service": "su"},
    ),
    (
        "nginx",
        '{"time_local":"11/Oct/2026:22:14:15 +0000","msec":"1791756855.003","remote_addr":"192.0.2.1",'
        '"request":"it works","status":"500"}',
        {
            "timestamp": SECOND,
            "attributes": {"msec": "1791756855.003", "remote_addr": "192.0.2.1", "status": "500"},
        },
    ),
    (
        "Caddy",
        '{"level":"error","ts":1791756855.003,"logger":"http.log.access","msg":"it works",'
        '"request":{"host":"x"},"status":500}',
        {"severity": 3, "attributes": {"logger": "http.log.access", "request": {"host": "x"}, "status": 500}},
    ),
    (
        "Vector in Kubernetes",
        '{"kubernetes":{"container_name":"c","pod_labels":{"app":"shop"},"pod_node_name":"node1"},"message":"it works",'
        '"source_type":"kubernetes_logs","timestamp":"2026-10-11T22:14:15.003Z"}',
        {
            "service": "shop",
            "host": "node1",
            "attributes": {"kubernetes": {"container_name": "c"}, "source_type": "kubernetes_logs"},
        },
    ),
    (
        "Loki's labels",
        '{"container":"shop","namespace":"n","pod":"p","job":"n/shop","node_name":"node1","line":"it works",'
        '"ts":1791756855003000000}',
        {"service": "shop", "host": "node1", "attributes": {"namespace": "n", "pod": "p", "job": "n/shop"}},
    ),
    (
        "MongoDB",
        '{"t":{"$date":"2026-10-11T22:14:15.003+00:00"},"s":"E","c":"NETWORK","id":1,"ctx":"x","msg":"it works"}',
        {"severity": 3, "attributes": {"c": "NETWORK", "id": 1, "ctx": "x"}},
    ),
    (
        "PostgreSQL, jsonlog",
        '{"timestamp":"2026-10-11 22:14:15.003 UTC","pid":1,"error_severity":"FATAL","message":"it works"}',
        {"severity": 2, "attributes": {"pid": 1}},
    ),
    (
        "Windows, fluent-bit",
        '{"date":1791756855.003,"EventID":7,"Channel":"System","Computer":"h","Level":4,"Message":"it works"}',
        {"severity": 6, "host": "h", "attributes": {"EventID": 7, "Channel": "System"}},
    ),
    (
        "Falco",
        '{"hostname":"h","output":"it works","priority":"Critical","rule":"r","time":"2026-10-11T22:14:15.003000000Z"}',
        {"severity": 2, "host": "h", "attributes": {"rule": "r"}},
    ),
]
