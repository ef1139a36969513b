/*-------------------------------------------------------------------------
 *
 * taskshed.c
 *		Module load: settings and hooks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "taskshed.h"

PG_MODULE_MAGIC;

/* As many as max_worker_processes can be. */
#define MAX_WORKERS	262143

extern PGDLLEXPORT void _PG_init(void);

bool		ts_enabled = true;
int			ts_max_workers = 4;
int			ts_worker_idle_timeout = 30000;
int			ts_scheduler_idle_timeout = 300000;
int			ts_synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
int			ts_log_failures = WARNING;
int			ts_history = 'a';
int			ts_history_retention = 7 * 24 * 60;
int			ts_failed_retention = -1;
int			ts_history_max_size = 1024;
int			ts_history_max_text = 1024;
int			ts_pause_after_failures = 0;
int			ts_timeout = 0;
int			ts_max_interruptions = 5;
int			ts_max_workers_per_role = 0;
bool		ts_allow_superuser_tasks = true;
int			ts_max_tasks_per_role = 0;

static object_access_hook_type prev_object_access_hook = NULL;

static const struct config_enum_entry synchronous_commit_options[] = {
	{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
	{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
	{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
	{"on", SYNCHRONOUS_COMMIT_ON, false},
	{"off", SYNCHRONOUS_COMMIT_OFF, false},
	{NULL, 0, false}
};

static const struct config_enum_entry log_failures_options[] = {
	{"debug", DEBUG1, false},
	{"notice", NOTICE, false},
	{"warning", WARNING, false},
	{"log", LOG, false},
	{"off", 0, false},
	{NULL, 0, false}
};

static const struct config_enum_entry history_options[] = {
	{"all", 'a', false},
	{"errors", 'e', false},
	{"none", 'n', false},
	{NULL, 0, false}
};

static void
define_settings(void)
{
	DefineCustomBoolVariable("taskshed.enabled",
							 "Runs tasks.",
							 "When off, tasks can be scheduled but none is started. It can be set for a database with ALTER DATABASE.",
							 &ts_enabled, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.max_workers",
							"Sets the maximum number of worker processes of each database.",
							"The launcher and the schedulers are not counted. All of them take slots of max_worker_processes.",
							&ts_max_workers, 4, 1, MAX_WORKERS,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.max_workers_per_role",
							"Sets the maximum number of worker processes of a role in each database.",
							"0 means no other limit than taskshed.max_workers.",
							&ts_max_workers_per_role, 0, 0, MAX_WORKERS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("taskshed.allow_superuser_tasks",
							 "Allows tasks that run as a superuser.",
							 "When off, none can be scheduled, and those that there are wait.",
							 &ts_allow_superuser_tasks, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.worker_idle_timeout",
							"Sets how long a worker waits for its next task before it exits.",
							NULL,
							&ts_worker_idle_timeout, 30000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.scheduler_idle_timeout",
							"Sets how long the scheduler of a database without anything to do stays before it exits.",
							"It is started again before the next task is due, and when one is scheduled that is due before.",
							&ts_scheduler_idle_timeout, 300000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("taskshed.synchronous_commit",
							 "Sets synchronous_commit for the commit that ends a run.",
							 "A callback can set synchronous_commit for its own run.",
							 &ts_synchronous_commit, SYNCHRONOUS_COMMIT_OFF,
							 synchronous_commit_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("taskshed.log_failures",
							 "Sets the level at which failed runs are logged.",
							 "One line for each: task, callback, owner, SQLSTATE and message; never the values of kwargs.",
							 &ts_log_failures, WARNING, log_failures_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("taskshed.history",
							 "Sets which runs are recorded in the history.",
							 "It is the default of tasks that do not say.",
							 &ts_history, 'a', history_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.history_retention",
							"Sets how long runs are kept in the history.",
							"They go some at a time, so the oldest may be kept an eighth longer.",
							&ts_history_retention, 7 * 24 * 60, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.failed_retention",
							"Sets how long tasks that have failed for good are kept.",
							"-1 means until somebody retries or removes them.",
							&ts_failed_retention, -1, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.history_max_size",
							"Sets how large the history of a database may become.",
							"The oldest runs go first, whatever their age.",
							&ts_history_max_size, 1024, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.history_max_text",
							"Sets the length at which a run's result and error texts are cut.",
							NULL,
							&ts_history_max_text, 1024, 0, 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.pause_after_failures",
							"Sets after how many failures in a row a recurring task is paused.",
							"0 means never.",
							&ts_pause_after_failures, 0, 0, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.timeout",
							"Sets how long a run may take.",
							"It is the default of tasks that do not say; 0 means any time.",
							&ts_timeout, 0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.max_interruptions",
							"Sets after how many runs in a row that lost their worker or the server a task counts as failed.",
							"An interruption uses no attempt.",
							&ts_max_interruptions, 5, 1, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("taskshed.max_tasks_per_role",
							"Sets how many tasks a role may have in a database.",
							"0 means no limit. Superusers have none. ALTER ROLE can set it for the sessions of a role.",
							&ts_max_tasks_per_role, 0, 0, INT_MAX - 1,
							PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("taskshed");
}

/*
 * DROP EXTENSION: has the scheduler and the workers find out and leave.  And
 * databases come and go.
 */
static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (ts_shared == NULL)
		return;
	if (access == OAT_DROP && class_id == DatabaseRelationId)
		hold_for_drop(object_id);
	else if (access == OAT_POST_CREATE && class_id == DatabaseRelationId)
		hold_look_into(object_id);
	else if (access == OAT_DROP && class_id == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, "taskshed") == 0)
			notes_reread();
	}
}

/* The one of the few places for such callbacks that a process has which is ours. */
static void
relation_changed(Datum arg, Oid relid)
{
	store_relation_changed(relid);
	callback_relation_changed(relid);
	alias_relation_changed(relid);
	history_relation_changed(relid);
	home_relation_changed(relid);
	replicated_relation_changed(relid);
}

/*
 * Without preload, as in pg_upgrade or a stray LOAD, the library loads and
 * does nothing: whoever calls one of its functions is told by
 * ts_require_preload.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	define_settings();
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
	shared_init();
	prepared_init();
	notes_init();
	late_from_init();
	roles_init();
	quota_init();
	hold_init();
	settings_init();
	callback_init();
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	utility_init();
	views_init();
	if (!IsBinaryUpgrade)
		launcher_register();
}

/* Refuses what needs the shared memory that only a preload gets: 55000. */
void
ts_require_preload(void)
{
	if (ts_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("taskshed must be loaded when the server starts"),
				 errhint("Add taskshed to shared_preload_libraries in postgresql.conf, as in shared_preload_libraries = 'taskshed', and restart the server.")));
}

/*
 * Is there anything in our schema but the function of that OID?  No SQL can be
 * asked: the schema is in the search_path of the script, and an operator in it
 * may be a better match than the server's own.
 */
static bool
install_is_filled(Oid schema, Oid but)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		filled = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (!filled && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		filled = (form->classid != ExtensionRelationId &&
				  !(form->classid == ProcedureRelationId && form->objid == but));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return filled;
}

/*
 * CREATE EXTENSION begins with this.  A schema taskshed that was there before
 * must be a superuser's, since its owner could put functions beside ours, and
 * drop ours; and empty, since what is there would be taken for ours, by its
 * name.
 */
PG_FUNCTION_INFO_V1(ts_check_install);
Datum
ts_check_install(PG_FUNCTION_ARGS)
{
	HeapTuple	tuple;
	Oid			schema;
	Oid			owner;

	if (IsBinaryUpgrade)
		PG_RETURN_VOID();
	ts_require_preload();
	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("taskshed"));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "schema taskshed does not exist");
	schema = ((Form_pg_namespace) GETSTRUCT(tuple))->oid;
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	if (!superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"taskshed\" is owned by role \"%s\", which is not a superuser",
						GetUserNameFromId(owner, false)),
				 errhint("Drop the schema.")));
	if (install_is_filled(schema, fcinfo->flinfo->fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"taskshed\" is not empty"),
				 errhint("Drop it, or what is in it.")));
	PG_RETURN_VOID();
}

/* CREATE EXTENSION ends with this. */
PG_FUNCTION_INFO_V1(ts_start_scheduler);
Datum
ts_start_scheduler(PG_FUNCTION_ARGS)
{
	/* the launcher, this database's scheduler, its workers */
	int			needed = 1 + 1 + ts_max_workers + TS_SLOTS_LEFT_FREE;

	if (IsBinaryUpgrade)
		PG_RETURN_VOID();
	ts_require_preload();
	notes_want_scheduler();
	if (max_worker_processes < needed)
		ereport(WARNING,
				(errmsg("max_worker_processes is too low for taskshed.max_workers"),
				 errdetail("It is %d, and %d are needed for the launcher, this database's scheduler, %d workers and the %d left to others.",
						   max_worker_processes, needed, ts_max_workers, TS_SLOTS_LEFT_FREE),
				 errhint("Increase max_worker_processes, or lower taskshed.max_workers. Fewer tasks will run at the same time.")));
	PG_RETURN_VOID();
}

/* The trigger on taskshed.alarm, for rows that none of our functions wrote. */
PG_FUNCTION_INFO_V1(ts_alarm_changed);
Datum
ts_alarm_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	TupleDesc	desc;
	Datum		id;
	Datum		run_at;
	Datum		owner;
	bool		nulls[3];

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._alarm_changed() must be called by its trigger")));
	if (ts_shared == NULL)
		PG_RETURN_POINTER(NULL);

	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	if (desc->natts < Natts_alarm)
		PG_RETURN_POINTER(NULL);
	id = heap_getattr(row, Anum_alarm_id, desc, &nulls[0]);
	run_at = heap_getattr(row, Anum_alarm_run_at, desc, &nulls[1]);
	owner = heap_getattr(row, Anum_alarm_owner, desc, &nulls[2]);
	if (!nulls[0] && !nulls[1] && !nulls[2])
	{
		notes_add(DatumGetTimestampTz(run_at), DatumGetInt64(id), DatumGetObjectId(owner));
		quota_note(DatumGetObjectId(owner));
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * The trigger on all our tables that has only superusers write them by hand:
 * nobody else is granted that, but pg_write_all_data may write every table,
 * and a row of ours says as whom something is run.  It fires for each statement.
 * (A subscription's worker executes none: see ts_guard.)  Our own functions do not
 * fire triggers.  Error: 42501.
 */
PG_FUNCTION_INFO_V1(ts_superusers_only);
Datum
ts_superusers_only(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._superusers_only() must be called by its trigger")));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s",
						RelationGetRelationName(trigger->tg_relation)),
				 errdetail("Only superusers can write the tables of taskshed by hand.")));
	PG_RETURN_POINTER(NULL);
}
