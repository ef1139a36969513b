/*-------------------------------------------------------------------------
 *
 * session.c
 *		The session of a worker: what it starts from, and as new after a run.
 *
 * A worker's session has the settings of its role and database, like any
 * other, less those with which it could not do its own work.  What a run
 * leaves in it must not reach the next one: the settings, the role, prepared
 * statements, cursors, temporary objects, advisory locks, the state of
 * sequences and of the random number generator.
 *
 * This is what DISCARD ALL does, but it keeps the plans of the callbacks, and
 * does only what can be necessary, because it is done after each run.  Most
 * settings have gone with the run's own transaction.  Those that a procedure
 * has committed, and temporary objects, take another transaction, so only runs
 * that can have left any get one.
 *
 * Some things the server cannot put back, such as the variables of a procedural
 * language or a library that was loaded.  They go with the process; see
 * worker.c.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "common/pg_prng.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

/*
 * Has any transaction used temporary objects?  Once there is a schema for them,
 * functions and types can be created there by its own name, pg_temp_3 say, and
 * of these the server keeps no note.
 */
static bool used_temp_namespace = false;

static void
session_xact_callback(XactEvent event, void *arg)
{
	if ((event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_ABORT) &&
		(MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE))
		used_temp_namespace = true;
}

/*
 * Set what a session of ours needs, once a worker, when it is connected.  A callback
 * may still set any of these for itself.
 */
void
session_start(void)
{
	process_override_setting("application_name", "taskshed worker");

	/* tasks run as their owner, whatever that sets its sessions to be */
	process_override_setting("role", "none");

	/* these would have the process end, not the run */
	process_override_setting("exit_on_error", "off");
	process_override_setting("transaction_timeout", "0");

	/* nothing arms it here; what a command sets itself is heeded */
	process_override_setting("statement_timeout", "0");

	/* it would have to wait for others to get a snapshot, even for its exit */
	process_override_setting("default_transaction_deferrable", "off");

	session_apply_settings();
	RegisterXactCallback(session_xact_callback, NULL);
}

/* Have the commit that ends a run be as durable as our own setting says. */
void
session_apply_settings(void)
{
	process_override_setting("synchronous_commit",
							 GetConfigOption("taskshed.synchronous_commit", false, false));
}

/*
 * Put back what does not end with a transaction, between two runs in the same one.
 * What a callback has set, run_call has put back.
 */
void
session_reset_within(void)
{
	DropAllPreparedStatements();
	PortalHashTableDeleteAll();
	LockReleaseSession(USER_LOCKMETHOD);
	ResetSequenceCaches();

	/* a seed cannot be taken back, but replaced by one that nobody knows */
	DirectFunctionCall1(setseed,
						Float8GetDatum(2.0 * pg_prng_double(&pg_global_prng_state) - 1.0));
}

/*
 * Put the session back as new, between two runs or two tries of one: no
 * transaction is in progress.  settings_left says whether the callback has
 * committed anything, and so may have left settings behind.
 *
 * An error here is for the caller not to survive.
 */
void
session_reset(bool settings_left)
{
	int			lock_timeout = LockTimeout;

	session_reset_within();
	if (!used_temp_namespace && !settings_left)
		return;

	StartTransactionCommand();
	XactReadOnly = false;
	XactDeferrable = false;		/* a snapshot is not to be waited for */
	if (settings_left)
	{
		SetPGVariable("session_authorization", NIL, false);
		ResetAllOptions();
	}
	LockTimeout = 0;
	if (used_temp_namespace)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		ResetTempTableNamespace();
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	LockTimeout = lock_timeout;
}
