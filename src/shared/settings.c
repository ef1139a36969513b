/*-------------------------------------------------------------------------
 *
 * settings.c
 *		The settings of taskshed, and whether the library was preloaded.
 *
 * What a setting does is told by its description below and in docs/reference.md.
 * Their variables are read where they matter.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/guc.h"

#include "shared/shared.h"

/* As many as max_worker_processes can be. */
#define MAX_WORKERS	262143

bool		ts_enabled = true;
int			ts_max_workers = 4;
int			ts_tasks_per_commit = 1;
int			ts_worker_idle_timeout = 30000;
int			ts_scheduler_idle_timeout = 300000;
int			ts_synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
int			ts_log_failures = WARNING;
int			ts_history = HISTORY_ALL;
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
char	   *ts_on_failure = NULL;
char	   *ts_notify_failures = NULL;

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

/* Return whether a value can be the name of a channel, or is empty. */
static bool
settings_check_channel(char **value, void **extra, GucSource source)
{
	if (strlen(*value) >= NAMEDATALEN)
	{
		GUC_check_errdetail("The name of a channel is shorter than %d bytes.", NAMEDATALEN);
		return false;
	}
	return true;
}

/* Define them, at the library's load. */
void
settings_define(void)
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
	DefineCustomIntVariable("taskshed.tasks_per_commit",
							"Sets how many short runs of a role may share a transaction.",
							"A role may set it for itself, with ALTER ROLE. 1 means that each run has a transaction of its own.",
							&ts_tasks_per_commit, 1, 1, TS_MAX_TASKS_PER_COMMIT,
							PGC_USERSET, 0, NULL, NULL, NULL);
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
							 &ts_history, HISTORY_ALL, history_words,
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
	DefineCustomStringVariable("taskshed.on_failure",
							   "Sets the callback that a task is scheduled for when another fails.",
							   "It is the default of tasks that do not say. A role may set it for itself, with ALTER ROLE.",
							   &ts_on_failure, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("taskshed.notify_failures",
							   "Sets the channel that is notified when a run has failed for good.",
							   "A role may set it for itself, with ALTER ROLE. Empty means none.",
							   &ts_notify_failures, "",
							   PGC_USERSET, 0, settings_check_channel, NULL, NULL);
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


/* Refuse what needs the shared memory that only a preload gets: 55000. */
void
ts_require_preload(void)
{
	if (ts_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("taskshed must be loaded when the server starts"),
				 errhint("Add taskshed to shared_preload_libraries in postgresql.conf, as in shared_preload_libraries = 'taskshed', and restart the server.")));
}
