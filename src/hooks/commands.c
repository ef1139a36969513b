/*-------------------------------------------------------------------------
 *
 * commands.c
 *		What the server's commands mean for tasks: DROP OWNED and REASSIGN OWNED
 *		take them along, DROP EXTENSION waits for our processes, ALTER EXTENSION
 *		has them look again, and others.
 *
 * To the server a task is a row like others, owned by nobody.  To those who
 * clear up after a role it is one of the role's belongings, so the two
 * commands that deal with these in one database deal with tasks too.
 *
 * DROP EXTENSION locks tables as it comes to them, and so do the scripts that
 * update the extension.  Our processes lock several of them in a fixed order, so
 * these are made to keep that order.  With those who read our views as well there
 * is none that would do for all, so these commands give way at first.
 *
 * Other commands are passed on to whom they concern: those that must have a
 * database alone (database_hold.c), make one (copies.c), change settings (changed_settings.c), change
 * our tables, of which schedulers keep what they have read, or end a prepared
 * transaction (prepared.c).
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
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#include "hooks/hooks.h"

/* How often a command gives way to others before it insists. */
#define MAX_TRIES	10

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access_hook = NULL;

/*
 * The server has done its part, and with it checked the privileges: now ours,
 * if the extension is (still) there.  new_owner is invalid for DROP OWNED.
 */
static void
commands_owned(List *owners, Oid new_owner)
{
	Store	   *store;
	ListCell   *lc;

	CommandCounterIncrement();
	store = store_try_open(RowExclusiveLock);
	if (store == NULL)
	{
		/* they are left with their tasks, which is better said */
		if (store_state() != STORE_ABSENT)
			store_report(WARNING, store_state());
		return;
	}
	foreach(lc, owners)
	{
		if (OidIsValid(new_owner))
			owner_reassign_owned(store, lfirst_oid(lc), new_owner);
		else
			owner_drop_owned(store, lfirst_oid(lc));
	}
	store_close(store, NoLock);
}

/*
 * Is it a DROP EXTENSION of ours, or DROP SCHEMA with it, that will not be
 * refused?  It would lock our tables in any order, and our processes theirs in
 * another: a deadlock.
 */
static bool
commands_drops_extension(const Node *statement)
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

/* Is it an ALTER EXTENSION of ours, an UPDATE or a change of what belongs to it? */
static bool
commands_alters_extension(const Node *statement)
{
	const char *name = NULL;

	if (IsA(statement, AlterExtensionStmt))
		name = ((const AlterExtensionStmt *) statement)->extname;
	else if (IsA(statement, AlterExtensionContentsStmt))
		name = ((const AlterExtensionContentsStmt *) statement)->extname;
	return name != NULL && strcmp(name, "taskshed") == 0;
}

/*
 * Is a table of ours altered?  pg_restore --disable-triggers does that when it is
 * done, and nothing else tells of the rows that it brought.
 */
static bool
commands_alters_table(const Node *statement)
{
	Oid			relid;

	if (!IsA(statement, AlterTableStmt) ||
		((const AlterTableStmt *) statement)->objtype != OBJECT_TABLE)
		return false;
	relid = RangeVarGetRelid(((const AlterTableStmt *) statement)->relation, NoLock, true);
	return OidIsValid(relid) &&
		get_rel_namespace(relid) == get_namespace_oid("taskshed", true);
}

static bool
commands_ends_prepared(const Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		(((const TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((const TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/* The extension's relations of that kind, in the order in which they were made. */
static List *
commands_list_relations(char relkind)
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
 * Locks our views, as readers do, each before those that it is made of, and our
 * tables, as our processes do.
 */
static void
commands_lock(void)
{
	List	   *views = commands_list_relations(RELKIND_VIEW);

	for (int i = list_length(views) - 1; i >= 0; i--)
		LockRelationOid(list_nth_oid(views, i), AccessExclusiveLock);
	store_lock_for_drop();
	history_lock_for_drop();
}

/*
 * Waits until those have gone who use our relations, one after the other, with no
 * lock on any but the first table in the end: that is the one whose users are many,
 * and others do not come back to it.
 */
static void
commands_wait(void)
{
	List	   *tables = commands_list_relations(RELKIND_RELATION);
	List	   *relations = list_concat_copy(commands_list_relations(RELKIND_VIEW), tables);
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

/* As a ProcessUtility_hook: to the next one, and in the end to the server. */
static void
commands_pass_on(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
								queryEnv, dest, qc);
}

/*
 * Tries once to execute what drops or alters the extension.  Waits for no lock
 * longer than patience (ms) while it holds others; if it is to, it first waits
 * without any for all who are there.  Returns false if that is not enough, or is a
 * deadlock; then everything is as it was, and nothing locked.  (Notices have been
 * given, perhaps, and event triggers have run.)
 */
static bool
commands_try(PlannedStmt *pstmt, const char *queryString, ProcessUtilityContext context,
			 ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest,
			 QueryCompletion *qc, int patience, bool wait)
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
			commands_wait();
		waiting = false;
		snprintf(value, sizeof(value), "%d", patience);
		(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		commands_lock();
		commands_pass_on(pstmt, queryString, true, context, params, queryEnv, dest, qc);
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
 * Executes what drops or alters the extension, while others use it.
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
static void
commands_try_hard(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				  ProcessUtilityContext context, ParamListInfo params,
				  QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	int			patience = Max(DeadlockTimeout / 10, 1);

	for (int i = 0; i < MAX_TRIES && !ExitOnAnyError &&
		 (LockTimeout == 0 || patience < LockTimeout); i++)
	{
		if (commands_try(pstmt, queryString, context, params, queryEnv, dest, qc, patience,
						 i % 2 == 1))
			return;
	}
	commands_lock();
	commands_pass_on(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

/* Tells what a prepared transaction had to tell, which is committed. */
static void
commands_tell_prepared(int kinds, const PreparedHint *hint)
{
	if (kinds & PREPARED_NOTES)
		notes_tell_prepared(hint);
	if (kinds & PREPARED_ROLES)
		database_tell_role_change();
	if (kinds & PREPARED_SETTINGS)
		changed_settings_tell_all();
	if (kinds & PREPARED_DATABASES)
		shared_look_around();
}

/*
 * COMMIT PREPARED and ROLLBACK PREPARED.  What is to be told is looked up before,
 * when an error is only an error.  An error of the command itself may come when
 * the transaction is committed already, so that everything is told then, in vain
 * perhaps.  Where nothing was found before, the session that prepares it may have
 * been just about to.
 */
static void
commands_end_prepared(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					  ProcessUtilityContext context, ParamListInfo params,
					  QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	const TransactionStmt *statement = (const TransactionStmt *) pstmt->utilityStmt;
	bool		commits = (statement->kind == TRANS_STMT_COMMIT_PREPARED);
	int			kinds = commits ? prepared_kinds(statement->gid) : 0;
	PreparedHint hint;
	bool		found;

	PG_TRY();
	{
		commands_pass_on(pstmt, queryString, readOnlyTree, context, params,
						 queryEnv, dest, qc);
	}
	PG_CATCH();
	{
		commands_tell_prepared(kinds, NULL);
		PG_RE_THROW();
	}
	PG_END_TRY();

	found = prepared_take(statement->gid, &hint);
	if (found && commits)
		kinds |= PREPARED_NOTES;
	commands_tell_prepared(kinds, found ? &hint : NULL);
}

/* Can a statement change what roles_check looks at? */
static bool
commands_change_roles(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterRoleStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:	/* databases, too */
			return true;
		case T_RenameStmt:
			return ((const RenameStmt *) statement)->renameType == OBJECT_ROLE;
		case T_GrantStmt:
			return ((const GrantStmt *) statement)->objtype == OBJECT_DATABASE;
		case T_AlterOwnerStmt:
			return ((const AlterOwnerStmt *) statement)->objectType == OBJECT_DATABASE;
		default:
			return false;
	}
}

/*
 * DROP EXTENSION: has the scheduler and the workers find out and leave.  And
 * databases come and go.
 */
static void
commands_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (ts_shared == NULL)
		return;
	if (access == OAT_DROP && class_id == DatabaseRelationId)
		database_hold_for_drop(object_id);
	else if (access == OAT_POST_CREATE && class_id == DatabaseRelationId)
		database_hold_look_into(object_id);
	else if (access == OAT_DROP && class_id == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, "taskshed") == 0)
			notes_reread();
	}
}

/* The roles are looked up first: an event trigger may have other ideas of them. */
static void
commands_process(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	bool		owned = false;
	List	   *owners = NIL;
	Oid			new_owner = InvalidOid;

	if (IsA(statement, DropOwnedStmt))
	{
		owned = true;
		owners = roleSpecsToIds(((DropOwnedStmt *) statement)->roles);
	}
	else if (IsA(statement, ReassignOwnedStmt))
	{
		owned = true;
		owners = roleSpecsToIds(((ReassignOwnedStmt *) statement)->roles);
		new_owner = get_rolespec_oid(((ReassignOwnedStmt *) statement)->newrole, false);
	}

	/* it is prepared when the statement is over */
	if (IsA(statement, TransactionStmt) &&
		((const TransactionStmt *) statement)->kind == TRANS_STMT_PREPARE)
		prepared_set_name(((const TransactionStmt *) statement)->gid);

	if (commands_change_roles(statement))
		notes_roles_changed();
	copies_check_statement(statement);
	if (ts_shared != NULL)
		database_hold_for_statement(statement);
	if (ts_shared != NULL && commands_ends_prepared(statement))
		commands_end_prepared(pstmt, queryString, readOnlyTree, context, params,
							  queryEnv, dest, qc);
	else if (commands_drops_extension(statement) ||
			 (commands_alters_extension(statement) && superuser()))
		commands_try_hard(pstmt, queryString, readOnlyTree, context, params,
						  queryEnv, dest, qc);
	else
		commands_pass_on(pstmt, queryString, readOnlyTree, context, params,
						 queryEnv, dest, qc);

	if (owned)
		commands_owned(owners, new_owner);
	if (commands_alters_extension(statement))
		store_extension_changed();
	if (ts_shared != NULL)
	{
		changed_settings_note(statement);
		if (commands_alters_table(statement) || commands_alters_extension(statement))
			notes_reread();
	}
}

/* Once, when the library is preloaded. */
void
commands_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = commands_process;
	prev_object_access_hook = object_access_hook;
	object_access_hook = commands_access;
}
