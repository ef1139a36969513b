/*-------------------------------------------------------------------------
 *
 * changed_settings.c
 *		Noticing that settings of a database or a role have changed.
 *
 * A session takes the settings of its database and its role when it connects.
 * Ours stay connected for long, so ALTER DATABASE ... SET and ALTER ROLE ... SET
 * would have no effect for as long.  When such a command commits, the workers
 * that it concerns are told to leave after their run, and a scheduler to leave
 * now; those who come in their place have the new settings.  A scheduler that is
 * away comes and looks what they mean.
 *
 * A process makes itself known before it connects.  So none that has old
 * settings is missed; one that has just connected with the new ones may be told
 * as well.  When a prepared transaction with such a command is committed, all are.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid_d.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#include "commit/commit.h"

/* Whose settings this transaction has changed; InvalidOid: everybody's. */
typedef struct SettingsChange
{
	Oid			database;
	Oid			role;
} SettingsChange;

static List *changes = NIL;		/* in TopTransactionContext */

/* Tell the workers that a change is about to leave. */
static void
changed_settings_tell_workers(const SettingsChange *change)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		PGPROC	   *proc = NULL;

		SpinLockAcquire(&worker->mutex);
		if (worker->proc != NULL &&
			(!OidIsValid(change->database) || worker->database == change->database) &&
			(!OidIsValid(change->role) || worker->role == change->role))
		{
			worker->retire = true;
			proc = worker->proc;
		}
		SpinLockRelease(&worker->mutex);
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
}

/* Tell the schedulers, which are sessions of the first superuser. */
static void
changed_settings_tell_schedulers(const SettingsChange *change)
{
	if (OidIsValid(change->role) && change->role != BOOTSTRAP_SUPERUSERID)
		return;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		concerned;

		SpinLockAcquire(&db->mutex);
		concerned = (!OidIsValid(change->database) || db->oid == change->database);
		if (concerned && db->scheduler != NULL)
			db->outdated = true;
		SpinLockRelease(&db->mutex);
		if (concerned)
			database_end_sleep(db);
		database_wake_scheduler(db);
	}
}

/*
 * Tell everybody, since anybody's settings may have changed.  Nothing here can
 * fail.
 */
void
changed_settings_tell_all(void)
{
	SettingsChange everybody = {InvalidOid, InvalidOid};

	changed_settings_tell_workers(&everybody);
	changed_settings_tell_schedulers(&everybody);
}

static void
changed_settings_xact_callback(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (event == XACT_EVENT_PRE_PREPARE && changes != NIL)
		prepared_mark(PREPARED_SETTINGS);
	if (event == XACT_EVENT_COMMIT)
	{
		foreach(lc, changes)
		{
			changed_settings_tell_workers(lfirst(lc));
			changed_settings_tell_schedulers(lfirst(lc));
		}
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		changes = NIL;			/* its memory goes with the transaction */
}

/* Set the callback: once a process, and only with shared memory. */
void
changed_settings_init(void)
{
	RegisterXactCallback(changed_settings_xact_callback, NULL);
}

/* Remember whose settings a statement has changed, which was executed. */
void
changed_settings_note(const Node *statement)
{
	MemoryContext old;
	SettingsChange *change;
	const char *database = NULL;
	const RoleSpec *role = NULL;

	if (IsA(statement, AlterDatabaseSetStmt))
		database = ((const AlterDatabaseSetStmt *) statement)->dbname;
	else if (IsA(statement, AlterRoleSetStmt))
	{
		database = ((const AlterRoleSetStmt *) statement)->database;
		role = ((const AlterRoleSetStmt *) statement)->role;
	}
	else
		return;

	old = MemoryContextSwitchTo(TopTransactionContext);
	change = palloc0(sizeof(SettingsChange));
	if (database != NULL)
		change->database = get_database_oid(database, false);
	if (role != NULL)
		change->role = get_rolespec_oid(role, false);
	changes = lappend(changes, change);
	MemoryContextSwitchTo(old);
}
