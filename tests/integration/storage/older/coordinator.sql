PRAGMA application_id = 1296256851;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "batches" VALUES('07441dae974d48199b609e46f5a503eb',3);
INSERT INTO "batches" VALUES('236634e10d5f442791eb4d127c00a0d2',9);
INSERT INTO "batches" VALUES('259fc499642c4cdd9305e5b7d60722ed',15);
INSERT INTO "batches" VALUES('2d72ae12d38e401ba3897eee771e9c9e',6);
INSERT INTO "batches" VALUES('39e2e85c051a42bf8e5b58dae188887e',17);
INSERT INTO "batches" VALUES('457d376806c84c79a0ba85d6850ff036',13);
INSERT INTO "batches" VALUES('5c0ca5e578eb41738b9abeabe0ec856d',10);
INSERT INTO "batches" VALUES('660c54ee3c214492b7597ebfdcbb6847',12);
INSERT INTO "batches" VALUES('72e6e5d6d52c414fa35cce772022d524',8);
INSERT INTO "batches" VALUES('7b989b6bf6ce4979bbabada900b70000',11);
INSERT INTO "batches" VALUES('83f6509ba5e6444d8aff6013c95d0b56',14);
INSERT INTO "batches" VALUES('95a3e8aaaa8b4b63890d9cfb78a3f111',19);
INSERT INTO "batches" VALUES('97767685e5a041798f3df8a85c1caefd',4);
INSERT INTO "batches" VALUES('a9704c73d47b4ffeae2928898a037e81',2);
INSERT INTO "batches" VALUES('cf0f40caeb73492ebdd4bef27f441205',7);
INSERT INTO "batches" VALUES('db28aa7e71d747b2bb6ae74313ae9b15',5);
INSERT INTO "batches" VALUES('e1e91930a286408880350ec771c197df',18);
INSERT INTO "batches" VALUES('eee3660fc7ed4c8495f77838d6477586',1);
INSERT INTO "batches" VALUES('f309488606d44ac8ac5281c984823e48',16);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
);
INSERT INTO "documents" VALUES(1,'job_1m7z322z4eqccs10qksk',X'0A04646F6E651230080112060A046E6F6E651A24080512150A0461726773120D68656C6C6F206F66207468656E22092F62696E2F6563686F1A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
INSERT INTO "documents" VALUES(2,'job_1m7z3230375kf56yj9r2',X'0A066661696C65641224080112060A046E6F6E651A18080512080A04617267731200220A2F62696E2F66616C73651A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
INSERT INTO "documents" VALUES(3,'job_1m7z3236vewawv5k5qpm',X'0A0972756E6E696E672D301227080112060A046E6F6E651A1B0805120B0A04617267731203363030220A2F62696E2F736C6565701A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
INSERT INTO "documents" VALUES(4,'job_1m7z32374h41rza3eq4n',X'0A0972756E6E696E672D311227080112060A046E6F6E651A1B0805120B0A04617267731203363030220A2F62696E2F736C6565701A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
INSERT INTO "documents" VALUES(5,'job_1m7z323dypa30t5sm8yv',X'0A0777616974696E67122A080112060A046E6F6E651A1E0805120F0A046172677312076174206C61737422092F62696E2F6563686F1A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
INSERT INTO "documents" VALUES(6,'job_1m7z323e2xpja8g805gt',X'0A0963616E63656C6C65641228080112060A046E6F6E651A1C0805120D0A046172677312056E6576657222092F62696E2F6563686F1A0D0A0B0A092F6465762F6E756C6C220808011A04483130303200');
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    cause TEXT NOT NULL,
    actor TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL
);
INSERT INTO "events" VALUES(1,1,1580000983466,'key','key_admin','KEY_CHANGED','admin','',0);
INSERT INTO "events" VALUES(2,2,1580000989537,'node','n1','NODE_JOINED','n1','',0);
INSERT INTO "events" VALUES(3,3,1580000989604,'job','job_1m7z322z4eqccs10qksk','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(4,3,1580000989604,'job','job_1m7z322z4eqccs10qksk','PLACED','core','SCHEDULING',1);
INSERT INTO "events" VALUES(5,3,1580000989604,'lease','job_1m7z322z4eqccs10qksk.1.0','LEASE_GRANTED','core','GRANTED',1);
INSERT INTO "events" VALUES(6,4,1580000989635,'job','job_1m7z3230375kf56yj9r2','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(7,4,1580000989635,'job','job_1m7z3230375kf56yj9r2','PLACED','core','SCHEDULING',1);
INSERT INTO "events" VALUES(8,4,1580000989635,'lease','job_1m7z3230375kf56yj9r2.1.0','LEASE_GRANTED','core','GRANTED',1);
INSERT INTO "events" VALUES(9,5,1580000989642,'lease','job_1m7z322z4eqccs10qksk.1.0','LEASE_OBSERVED','n1','ACCEPTED',1);
INSERT INTO "events" VALUES(10,5,1580000989642,'job','job_1m7z322z4eqccs10qksk','AGENTS_ACCEPTED','n1','PREPARING',1);
INSERT INTO "events" VALUES(11,6,1580000989662,'lease','job_1m7z3230375kf56yj9r2.1.0','LEASE_OBSERVED','n1','ACCEPTED',1);
INSERT INTO "events" VALUES(12,6,1580000989662,'job','job_1m7z3230375kf56yj9r2','AGENTS_ACCEPTED','n1','PREPARING',1);
INSERT INTO "events" VALUES(13,7,1580000989701,'lease','job_1m7z3230375kf56yj9r2.1.0','LEASE_OBSERVED','n1','RUNNING',1);
INSERT INTO "events" VALUES(14,7,1580000989701,'job','job_1m7z3230375kf56yj9r2','RANKS_STARTED','n1','TRAINING',1);
INSERT INTO "events" VALUES(15,8,1580000989713,'lease','job_1m7z3230375kf56yj9r2.1.0','LEASE_ENDED','n1','ENDED',1);
INSERT INTO "events" VALUES(16,8,1580000989713,'job','job_1m7z3230375kf56yj9r2','RANK_FAILED','n1','TRAINING',1);
INSERT INTO "events" VALUES(17,8,1580000989713,'job','job_1m7z3230375kf56yj9r2','RANK_FAILED','n1','FAILED',1);
INSERT INTO "events" VALUES(18,9,1580000989716,'lease','job_1m7z322z4eqccs10qksk.1.0','LEASE_ENDED','n1','ENDED',1);
INSERT INTO "events" VALUES(19,9,1580000989716,'job','job_1m7z322z4eqccs10qksk','RANKS_STARTED','n1','TRAINING',1);
INSERT INTO "events" VALUES(20,9,1580000989716,'job','job_1m7z322z4eqccs10qksk','FINISHED','n1','COMPLETED',1);
INSERT INTO "events" VALUES(21,10,1580000989729,'lease','job_1m7z322z4eqccs10qksk.1.0','RETIRED','core','',0);
INSERT INTO "events" VALUES(22,10,1580000989729,'lease','job_1m7z3230375kf56yj9r2.1.0','RETIRED','core','',0);
INSERT INTO "events" VALUES(23,10,1580000989729,'job','job_1m7z322z4eqccs10qksk','RETIRED','core','',0);
INSERT INTO "events" VALUES(24,10,1580000989729,'job','job_1m7z3230375kf56yj9r2','RETIRED','core','',0);
INSERT INTO "events" VALUES(25,11,1580000989852,'job','job_1m7z3236vewawv5k5qpm','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(26,11,1580000989852,'job','job_1m7z3236vewawv5k5qpm','PLACED','core','SCHEDULING',1);
INSERT INTO "events" VALUES(27,11,1580000989852,'lease','job_1m7z3236vewawv5k5qpm.1.0','LEASE_GRANTED','core','GRANTED',1);
INSERT INTO "events" VALUES(28,12,1580000989861,'job','job_1m7z32374h41rza3eq4n','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(29,12,1580000989861,'job','job_1m7z32374h41rza3eq4n','PLACED','core','SCHEDULING',1);
INSERT INTO "events" VALUES(30,12,1580000989861,'lease','job_1m7z32374h41rza3eq4n.1.0','LEASE_GRANTED','core','GRANTED',1);
INSERT INTO "events" VALUES(31,13,1580000989869,'lease','job_1m7z3236vewawv5k5qpm.1.0','LEASE_OBSERVED','n1','ACCEPTED',1);
INSERT INTO "events" VALUES(32,13,1580000989869,'job','job_1m7z3236vewawv5k5qpm','AGENTS_ACCEPTED','n1','PREPARING',1);
INSERT INTO "events" VALUES(33,14,1580000989884,'lease','job_1m7z32374h41rza3eq4n.1.0','LEASE_OBSERVED','n1','ACCEPTED',1);
INSERT INTO "events" VALUES(34,14,1580000989884,'job','job_1m7z32374h41rza3eq4n','AGENTS_ACCEPTED','n1','PREPARING',1);
INSERT INTO "events" VALUES(35,15,1580000989907,'lease','job_1m7z32374h41rza3eq4n.1.0','LEASE_OBSERVED','n1','RUNNING',1);
INSERT INTO "events" VALUES(36,15,1580000989907,'job','job_1m7z32374h41rza3eq4n','RANKS_STARTED','n1','TRAINING',1);
INSERT INTO "events" VALUES(37,16,1580000989913,'lease','job_1m7z3236vewawv5k5qpm.1.0','LEASE_OBSERVED','n1','RUNNING',1);
INSERT INTO "events" VALUES(38,16,1580000989913,'job','job_1m7z3236vewawv5k5qpm','RANKS_STARTED','n1','TRAINING',1);
INSERT INTO "events" VALUES(39,17,1580000990078,'job','job_1m7z323dypa30t5sm8yv','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(40,18,1580000990082,'job','job_1m7z323e2xpja8g805gt','ACCEPTED','admin','QUEUED',0);
INSERT INTO "events" VALUES(41,19,1580000990085,'job','job_1m7z323e2xpja8g805gt','CANCELLED_BY_USER','admin','CANCELLED',0);
INSERT INTO "events" VALUES(42,19,1580000990085,'job','job_1m7z323e2xpja8g805gt','RETIRED','core','',0);
CREATE TABLE job_counts (
    tenant_id TEXT NOT NULL,
    status TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, status)
) WITHOUT ROWID;
INSERT INTO "job_counts" VALUES('local','CANCELLED',1);
INSERT INTO "job_counts" VALUES('local','COMPLETED',1);
INSERT INTO "job_counts" VALUES('local','FAILED',1);
INSERT INTO "job_counts" VALUES('local','PREPARING',0);
INSERT INTO "job_counts" VALUES('local','QUEUED',1);
INSERT INTO "job_counts" VALUES('local','SCHEDULING',0);
INSERT INTO "job_counts" VALUES('local','TRAINING',2);
CREATE TABLE job_labels (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    job_number INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key, value, job_number)
) WITHOUT ROWID;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    tenant_id TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    live INTEGER NOT NULL,
    labels TEXT NOT NULL, -- {"key": "value", …}
    body TEXT NOT NULL
);
INSERT INTO "jobs" VALUES(1,'job_1m7z322z4eqccs10qksk','local','COMPLETED',5,'done',1580000989604,1580000989716,1,0,'{}','[1,{"job_id":"job_1m7z322z4eqccs10qksk","sequence":1,"lineage_id":"job_1m7z322z4eqccs10qksk","tenant_id":"local","user_id":"admin","name":"done","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"COMPLETED","reason":"FINISHED","message":"","attempt":{"number":1,"shares":[{"node_id":"n1","device_ids":["sim-H100-0"],"device_type":"H100"}],"granted_at_ms":1580000989604,"started_at_ms":1580000989716,"ended_at_ms":1580000989716,"stop":null},"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989604,"updated_at_ms":1580000989716,"started_at_ms":1580000989716,"completed_at_ms":1580000989716,"version":5}]');
INSERT INTO "jobs" VALUES(2,'job_1m7z3230375kf56yj9r2','local','FAILED',5,'failed',1580000989635,1580000989713,2,0,'{}','[1,{"job_id":"job_1m7z3230375kf56yj9r2","sequence":2,"lineage_id":"job_1m7z3230375kf56yj9r2","tenant_id":"local","user_id":"admin","name":"failed","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"FAILED","reason":"RANK_FAILED","message":"rank 0 exited with code 1","attempt":{"number":1,"shares":[{"node_id":"n1","device_ids":["sim-H100-1"],"device_type":"H100"}],"granted_at_ms":1580000989635,"started_at_ms":1580000989701,"ended_at_ms":1580000989713,"stop":"RANK_FAILED"},"failures_count":1,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":{"category":"USER_CODE","message":"rank 0 exited with code 1","exit_code":1,"signal":null,"rank":0},"created_at_ms":1580000989635,"updated_at_ms":1580000989713,"started_at_ms":1580000989701,"completed_at_ms":1580000989713,"version":6}]');
INSERT INTO "jobs" VALUES(3,'job_1m7z3236vewawv5k5qpm','local','TRAINING',5,'running-0',1580000989852,1580000989913,3,1,'{}','[1,{"job_id":"job_1m7z3236vewawv5k5qpm","sequence":3,"lineage_id":"job_1m7z3236vewawv5k5qpm","tenant_id":"local","user_id":"admin","name":"running-0","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"TRAINING","reason":"RANKS_STARTED","message":"","attempt":{"number":1,"shares":[{"node_id":"n1","device_ids":["sim-H100-0"],"device_type":"H100"}],"granted_at_ms":1580000989852,"started_at_ms":1580000989913,"ended_at_ms":0,"stop":null},"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989852,"updated_at_ms":1580000989913,"started_at_ms":1580000989913,"completed_at_ms":0,"version":4}]');
INSERT INTO "jobs" VALUES(4,'job_1m7z32374h41rza3eq4n','local','TRAINING',5,'running-1',1580000989861,1580000989907,4,1,'{}','[1,{"job_id":"job_1m7z32374h41rza3eq4n","sequence":4,"lineage_id":"job_1m7z32374h41rza3eq4n","tenant_id":"local","user_id":"admin","name":"running-1","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"TRAINING","reason":"RANKS_STARTED","message":"","attempt":{"number":1,"shares":[{"node_id":"n1","device_ids":["sim-H100-1"],"device_type":"H100"}],"granted_at_ms":1580000989861,"started_at_ms":1580000989907,"ended_at_ms":0,"stop":null},"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989861,"updated_at_ms":1580000989907,"started_at_ms":1580000989907,"completed_at_ms":0,"version":4}]');
INSERT INTO "jobs" VALUES(5,'job_1m7z323dypa30t5sm8yv','local','QUEUED',5,'waiting',1580000990078,1580000990078,5,1,'{}','[1,{"job_id":"job_1m7z323dypa30t5sm8yv","sequence":5,"lineage_id":"job_1m7z323dypa30t5sm8yv","tenant_id":"local","user_id":"admin","name":"waiting","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000990078,"updated_at_ms":1580000990078,"started_at_ms":0,"completed_at_ms":0,"version":1}]');
INSERT INTO "jobs" VALUES(6,'job_1m7z323e2xpja8g805gt','local','CANCELLED',5,'cancelled',1580000990082,1580000990085,6,0,'{}','[1,{"job_id":"job_1m7z323e2xpja8g805gt","sequence":6,"lineage_id":"job_1m7z323e2xpja8g805gt","tenant_id":"local","user_id":"admin","name":"cancelled","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"CANCELLED","reason":"CANCELLED_BY_USER","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000990082,"updated_at_ms":1580000990085,"started_at_ms":0,"completed_at_ms":1580000990085,"version":2}]');
CREATE TABLE leadership (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    holder TEXT NOT NULL
);
INSERT INTO "leadership" VALUES(1,1,19,'vm:20242:3996c968');
CREATE TABLE records (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (kind, id)
);
INSERT INTO "records" VALUES(1,'key','key_admin','[1,{"key_id":"key_admin","sha256":"cf62b2bc47d85dc85e1b611335db7e99397e87468b60e9d19262713606edcfa0","tenant_id":"local","user_id":"admin","permissions":["CLUSTER_ADMIN","EVALUATE","MANAGE","VIEW"],"created_at_ms":1580000983466,"expires_at_ms":0,"revoked_at_ms":0}]');
INSERT INTO "records" VALUES(2,'node','n1','[1,{"node_id":"n1","generation":1580000989,"incarnation":"0ef5d3ca63574693827e0291793f17d7","offer":{"devices":[{"device_id":"sim-H100-0","index":0,"type":"H100","model":"Simulated H100","memory_bytes":85899345920,"simulated":true,"healthy":true},{"device_id":"sim-H100-1","index":1,"type":"H100","model":"Simulated H100","memory_bytes":85899345920,"simulated":true,"healthy":true}],"address":"127.0.0.1","labels":[],"simulated":true,"cpu_count":2,"memory_bytes":25276510208,"disk_bytes":270553174016,"agent_version":"0.1.0"},"drain":null,"unreachable_since_ms":0,"joined_at_ms":1580000989537,"updated_at_ms":1580000989537,"version":1}]');
INSERT INTO "records" VALUES(3,'request','local/1a85e6dd-fa74-470e-87a9-619563a5a4c1','[1,{"tenant_id":"local","request_id":"1a85e6dd-fa74-470e-87a9-619563a5a4c1","digest":"691c2b02442aeed64d55a16879dc1dd5590b34fd61298c078aaa36fbcca13799","expires_at_ms":1795352389604,"job":{"job_id":"job_1m7z322z4eqccs10qksk","sequence":1,"lineage_id":"job_1m7z322z4eqccs10qksk","tenant_id":"local","user_id":"admin","name":"done","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989604,"updated_at_ms":1580000989604,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(5,'request','local/50b69e04-6b3b-4000-90fd-f9f96dd8e661','[1,{"tenant_id":"local","request_id":"50b69e04-6b3b-4000-90fd-f9f96dd8e661","digest":"ee7b8ada121a7cab670c360e6a6672c214e93e92558d139833ab7b37e0dc94ea","expires_at_ms":1795352389635,"job":{"job_id":"job_1m7z3230375kf56yj9r2","sequence":2,"lineage_id":"job_1m7z3230375kf56yj9r2","tenant_id":"local","user_id":"admin","name":"failed","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989635,"updated_at_ms":1580000989635,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(6,'request','local/37eb78ef-3e85-44f6-bcde-8f179e97dc95','[1,{"tenant_id":"local","request_id":"37eb78ef-3e85-44f6-bcde-8f179e97dc95","digest":"1af00fd22130d640d6c316293d6256a56ea33d7411743a9924e7d714ebf3bec8","expires_at_ms":1795352389852,"job":{"job_id":"job_1m7z3236vewawv5k5qpm","sequence":3,"lineage_id":"job_1m7z3236vewawv5k5qpm","tenant_id":"local","user_id":"admin","name":"running-0","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989852,"updated_at_ms":1580000989852,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(7,'lease','job_1m7z3236vewawv5k5qpm.1.0','[1,{"lease_id":"job_1m7z3236vewawv5k5qpm.1.0","epoch":1,"job_id":"job_1m7z3236vewawv5k5qpm","attempt":1,"node_id":"n1","device_ids":["sim-H100-0"],"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_rank":0,"first_rank":0,"local_world_size":1,"granted_at_ms":1580000989852,"action":"RUN","grace_ms":0,"state":3,"done":false,"failure":null,"output_model_uri":"","started_at_ms":1580000989909,"ended_at_ms":0,"observed_generation":1580000989,"observed_sequence":12}]');
INSERT INTO "records" VALUES(8,'request','local/511747a4-dcdc-41e0-8ac4-155e4d1c7bbd','[1,{"tenant_id":"local","request_id":"511747a4-dcdc-41e0-8ac4-155e4d1c7bbd","digest":"4cc83206cb6a8f5d19006d21399aa144a0b80cd2d44bdbc1b50b61f2d95607a4","expires_at_ms":1795352389861,"job":{"job_id":"job_1m7z32374h41rza3eq4n","sequence":4,"lineage_id":"job_1m7z32374h41rza3eq4n","tenant_id":"local","user_id":"admin","name":"running-1","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000989861,"updated_at_ms":1580000989861,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(9,'lease','job_1m7z32374h41rza3eq4n.1.0','[1,{"lease_id":"job_1m7z32374h41rza3eq4n.1.0","epoch":1,"job_id":"job_1m7z32374h41rza3eq4n","attempt":1,"node_id":"n1","device_ids":["sim-H100-1"],"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_rank":0,"first_rank":0,"local_world_size":1,"granted_at_ms":1580000989861,"action":"RUN","grace_ms":0,"state":3,"done":false,"failure":null,"output_model_uri":"","started_at_ms":1580000989903,"ended_at_ms":0,"observed_generation":1580000989,"observed_sequence":11}]');
INSERT INTO "records" VALUES(10,'request','local/7fe9fe8b-8819-446c-bde2-68cfae756d34','[1,{"tenant_id":"local","request_id":"7fe9fe8b-8819-446c-bde2-68cfae756d34","digest":"998da1b36c55fb1f51728f5c8fd060fc7f57b43331d43b226c849f1301a345bf","expires_at_ms":1795352390078,"job":{"job_id":"job_1m7z323dypa30t5sm8yv","sequence":5,"lineage_id":"job_1m7z323dypa30t5sm8yv","tenant_id":"local","user_id":"admin","name":"waiting","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000990078,"updated_at_ms":1580000990078,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(11,'request','local/ba00a450-01bd-4f5c-a4ce-18a9c9fa29f1','[1,{"tenant_id":"local","request_id":"ba00a450-01bd-4f5c-a4ce-18a9c9fa29f1","digest":"f266710b742a9d762274c431ae93cd0a26de19253994105e803abcf2b246c2e6","expires_at_ms":1795352390082,"job":{"job_id":"job_1m7z323e2xpja8g805gt","sequence":6,"lineage_id":"job_1m7z323e2xpja8g805gt","tenant_id":"local","user_id":"admin","name":"cancelled","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"QUEUED","reason":"WAITING_FOR_CAPACITY","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000990082,"updated_at_ms":1580000990082,"started_at_ms":0,"completed_at_ms":0,"version":1},"node":null}]');
INSERT INTO "records" VALUES(12,'request','local/f8c76b13-00c9-42e1-8431-492db8cd254f','[1,{"tenant_id":"local","request_id":"f8c76b13-00c9-42e1-8431-492db8cd254f","digest":"f5ab2dd24af69395ae5f2fc903147a0cc3412397dc9ba10478e0b72f35a220e3","expires_at_ms":1795352390085,"job":{"job_id":"job_1m7z323e2xpja8g805gt","sequence":6,"lineage_id":"job_1m7z323e2xpja8g805gt","tenant_id":"local","user_id":"admin","name":"cancelled","labels":[],"parent_job_id":"","queue_name":"default","priority":5,"demand":{"device_count":1,"device_type":"H100","device_memory_bytes":0,"node_count":0,"world_size":0,"cpu_count":0,"memory_bytes":0,"disk_bytes":0,"node_selector":[]},"policy":{"max_retries":0,"retry_on_exit_codes":[],"preemptible":true,"requeue_on_preemption":true,"start_after_ms":0,"deadline_ms":0,"depends_on":[],"expected_duration_ms":0,"max_runtime_ms":0,"grace_ms":120000,"on_unreachable":"KEEP"},"status":"CANCELLED","reason":"CANCELLED_BY_USER","message":"","attempt":null,"failures_count":0,"not_before_ms":0,"checkpoints":[],"resume_checkpoint_id":"","output_model_uri":"","failure":null,"created_at_ms":1580000990082,"updated_at_ms":1580000990085,"started_at_ms":0,"completed_at_ms":1580000990085,"version":2},"node":null}]');
CREATE TRIGGER batches_inserted AFTER INSERT ON batches BEGIN
    UPDATE leadership SET version = new.version;
END;
CREATE TRIGGER batches_forgotten AFTER INSERT ON batches WHEN new.version % 100 = 0 BEGIN
    DELETE FROM batches WHERE version <= new.version - 1000;
END;
CREATE INDEX jobs_live ON jobs (sequence, job_id) WHERE live;
CREATE INDEX jobs_by_created_at ON jobs (tenant_id, status, created_at, job_id);
CREATE INDEX jobs_by_updated_at ON jobs (tenant_id, status, updated_at, job_id);
CREATE INDEX jobs_by_name ON jobs (tenant_id, status, name, job_id);
CREATE INDEX jobs_by_priority ON jobs (tenant_id, status, priority, job_id);
CREATE INDEX jobs_by_status ON jobs (tenant_id, status, job_id);
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts VALUES (new.tenant_id, new.status, 1)
        ON CONFLICT (tenant_id, status) DO UPDATE SET n = n + 1;
    INSERT INTO job_labels
        SELECT new.tenant_id, key, value, new.number FROM json_each(new.labels);
END;
CREATE TRIGGER jobs_moved AFTER UPDATE ON jobs
WHEN new.status <> old.status OR new.tenant_id <> old.tenant_id BEGIN
    UPDATE job_counts SET n = n - 1 WHERE tenant_id = old.tenant_id AND status = old.status;
    INSERT INTO job_counts VALUES (new.tenant_id, new.status, 1)
        ON CONFLICT (tenant_id, status) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_labelled AFTER UPDATE ON jobs
WHEN new.labels <> old.labels OR new.tenant_id <> old.tenant_id BEGIN
    DELETE FROM job_labels WHERE tenant_id = old.tenant_id AND job_number = old.number
        AND (key, value) IN (SELECT each.key, each.value FROM json_each(old.labels) AS each);
    INSERT INTO job_labels
        SELECT new.tenant_id, key, value, new.number FROM json_each(new.labels);
END;
CREATE INDEX events_of ON events (id, sequence);
COMMIT;
