/*-------------------------------------------------------------------------
 *
 * drop_extension.c
 *		DROP EXTENSION and ALTER EXTENSION, while others use the extension.
 *
 * DROP EXTENSION locks tables as it comes to them, and so do the scripts that
 * update the extension.  Our processes lock several of them in a fixed order, so
 * these are made to keep that order.  With those who read our views as well there
 * is none that would do for all, so these commands give way at first.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#include "hooks/hooks.h"

/* How often a command gives way to others before it insists. */
#define MAX_TRIES	10

/*
 * Return whether it is a DROP EXTENSION of ours, or DROP SCHEMA with it, that will
 * not be refused.  It would lock our tables in any order, and our processes theirs
 * in another: a deadlock.
 */
bool
drop_extension_is_drop(const Node *statement)
{
	const DropStmt *drop = (const DropStmt *) statement;
	ListCell   *lc;

	if (!IsA(statement, DropStmt) || !superuser() ||
		(drop->removeType != OBJECT_EXTENSION &&
		 (drop->removeType != OBJECT_SCHEMA || drop->behavior != DROP_CASCADE)))
		return false;
	foreach(lc, drop->objects)
	{
		if (IsA(lfirst(lc), String) && strcmp(strVal(lfirst(lc)), "taskshed") == 0)
			return true;
	}
	return false;
}

/*
 * Return whether it is an ALTER EXTENSION of ours, an UPDATE or a change of what
 * belongs to it.
 */
bool
drop_extension_is_alter(const Node *statement)
{
	const char *name = NULL;

	if (IsA(statement, AlterExtensionStmt))
		name = ((const AlterExtensionStmt *) statement)->extname;
	else if (IsA(statement, AlterExtensionContentsStmt))
		name = ((const AlterExtensionContentsStmt *) statement)->extname;
	return name != NULL && strcmp(name, "taskshed") == 0;
}

/* List the extension's relations of that kind, in the order in which they were made. */
static List *
drop_extension_list_relations(char relkind)
{
	Oid			extension = get_extension_oid("taskshed", true);
	List	   *relations = NIL;
	Relation	rel;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(extension))
		return NIL;
	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, lengthof(keys), keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (depend->classid == RelationRelationId && get_rel_relkind(depend->objid) == relkind)
			relations = lappend_oid(relations, depend->objid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(relations, list_oid_cmp);
	return relations;
}

/*
 * Lock our views, as readers do, each before those that it is made of, and our
 * tables, as our processes do.
 */
static void
drop_extension_lock(void)
{
	List	   *views = drop_extension_list_relations(RELKIND_VIEW);

	for (int i = list_length(views) - 1; i >= 0; i--)
		LockRelationOid(list_nth_oid(views, i), AccessExclusiveLock);
	store_lock_for_drop();
	history_lock_for_drop();
}

/*
 * Wait until those have gone who use our relations, one after the other, with no
 * lock on any but the first table in the end: that is the one whose users are many,
 * and others do not come back to it.
 */
static void
drop_extension_wait(void)
{
	List	   *tables = drop_extension_list_relations(RELKIND_RELATION);
	List	   *relations = list_concat_copy(drop_extension_list_relations(RELKIND_VIEW), tables);
	Oid			first = tables != NIL ? linitial_oid(tables) : InvalidOid;

	for (int i = list_length(relations) - 1; i >= 0; i--)
	{
		Oid			relid = list_nth_oid(relations, i);

		if (relid == first)
			continue;
		LockRelationOid(relid, AccessExclusiveLock);
		UnlockRelationOid(relid, AccessExclusiveLock);
	}
	if (OidIsValid(first))
		LockRelationOid(first, AccessExclusiveLock);
}

/*
 * Try once to execute what drops or alters the extension.  Wait for no lock
 * longer than patience (ms) while others are held; if asked to, first wait without
 * any for all who are there.  Return false if that is not enough, or is a
 * deadlock; then everything is as it was, and nothing locked.  (Notices have been
 * given, perhaps, and event triggers have run.)
 */
static bool
drop_extension_try(const UtilityCommand *command, int patience, bool wait)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool waiting = wait;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		int			nest = NewGUCNestLevel();
		char		value[12];

		if (wait)
			drop_extension_wait();
		waiting = false;
		snprintf(value, sizeof(value), "%d", patience);
		(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		drop_extension_lock();
		utility_command_pass_on(command, true);
		AtEOXact_GUC(true, nest);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;

	if (error == NULL)
		return true;
	if (waiting ||
		(error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		 error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED))
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

/*
 * Execute what drops or alters the extension, while others use it.
 *
 * Whoever reads our views locks them before the tables; a run has locked the
 * tables when its callback reads the views; and others have views of their own on
 * ours.  Whatever order we keep, somebody may hold what we wait for and wait for
 * what we hold.  So we do not wait for long while we hold anything, but let go of
 * everything and begin anew, before others find out that there is a deadlock.
 *
 * That is enough if runs are short, and who reads the views is done soon.  Every
 * other time it is first waited for all of them, as long as the user's lock_timeout
 * allows.  In the end we insist; so we do at once where an error would end the
 * session, or lock_timeout is shorter than a try.
 */
void
drop_extension_execute(const UtilityCommand *command)
{
	int			patience = Max(DeadlockTimeout / 10, 1);

	for (int i = 0; i < MAX_TRIES && !ExitOnAnyError &&
		 (LockTimeout == 0 || patience < LockTimeout); i++)
	{
		if (drop_extension_try(command, patience, i % 2 == 1))
			return;
	}
	drop_extension_lock();
	utility_command_pass_on(command, false);
}
